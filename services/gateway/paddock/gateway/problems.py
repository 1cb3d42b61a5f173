"""What is wrong with parameters, in our own words.

A validator's own texts change with its version and repeat what was sent; these name the place and the rule, and never a
value, which may be a secret.
"""

from collections.abc import Mapping
from typing import Any, Final

import pydantic

from paddock.contracts import errors

PROBLEMS_MAX: Final = 10
"""Named in one answer; whoever fixes these sees the next."""
_PLACE_CHARS_MAX: Final = 80
_NOT_JSON: Final = "json_invalid"
_OTHERWISE: Final = "is not valid"
_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} members",
    "too_long": "must have at most {max_length} members",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must have a {discriminator} of {expected_tags}",
    "union_tag_not_found": "must have a {discriminator}",
}


def fault_of(method: str, error: pydantic.ValidationError) -> errors.Fault:
    """`InvalidParams` with each problem's place and rule, or `ParseError` when the text is no JSON at all."""
    found = error.errors(include_url=False, include_input=False)
    if any(one["type"] == _NOT_JSON for one in found):
        return errors.ParseError()
    problems = [
        {"path": _place(one["loc"]), "problem": _sentence(one["type"], one.get("ctx", {}))}
        for one in found[:PROBLEMS_MAX]
    ]
    first = problems[0]
    where = f"{first['path']} " if first["path"] else ""
    return errors.InvalidParams(
        f"cannot use the parameters of {method}: {where}{first['problem']}", data={"problems": problems}
    )


def _place(location: tuple[int | str, ...]) -> str:
    # "[key]" is the validator's mark for the name of a member rather than its value.
    text = ".".join(str(part)[:_PLACE_CHARS_MAX] for part in location if part != "[key]")
    return text[: 2 * _PLACE_CHARS_MAX]


def _sentence(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "value_error":  # raised by a rule of ours, in our words
        return str(context.get("error", _OTHERWISE))
    try:
        return _SENTENCES.get(kind, _OTHERWISE).format_map(context)
    except KeyError:
        return _OTHERWISE
