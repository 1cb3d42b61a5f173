import hashlib

from paddock.contracts import ids
from paddock.setup_pusher import environment

NONE = environment.Network()
PROXIED = environment.Network(
    http_proxy="http://proxy:1", https_proxy="http://proxy:2", no_proxy="localhost", ca_file="/etc/ca.pem"
)


def build(network: environment.Network = NONE, **scopes: dict[str, str]) -> environment.Environment:
    narrow = {"platform": {}, "project": {}, "machine": {}, **scopes}
    return environment.build(
        machine_id=ids.MachineId("m1"), project_id=ids.ProjectId("p1"), network=network, **narrow
    )


def test_the_narrower_scope_wins() -> None:
    made = build(platform={"A": "1", "B": "1", "C": "1"}, project={"B": "2", "C": "2"}, machine={"C": "3"})

    assert {name: made.variables[name] for name in "ABC"} == {"A": "1", "B": "2", "C": "3"}


def test_a_machine_knows_its_id_and_project_and_nobody_can_say_otherwise() -> None:
    made = build(machine={"PADDOCK_MACHINE_ID": "forged", "PADDOCK_PROJECT_ID": "forged"})

    assert (made.variables["PADDOCK_MACHINE_ID"], made.variables["PADDOCK_PROJECT_ID"]) == ("m1", "p1")


def test_proxies_are_given_in_both_cases_and_the_authorities_to_every_client() -> None:
    made = build(PROXIED).variables

    assert {made[name] for name in environment.CA_NAMES} == {"/etc/ca.pem"}
    assert (made["HTTP_PROXY"], made["http_proxy"]) == ("http://proxy:1", "http://proxy:1")
    assert (made["HTTPS_PROXY"], made["https_proxy"]) == ("http://proxy:2", "http://proxy:2")
    assert (made["NO_PROXY"], made["no_proxy"]) == ("localhost", "localhost")


def test_nothing_is_said_about_a_network_nobody_described() -> None:
    assert set(build().variables) == {"PADDOCK_MACHINE_ID", "PADDOCK_PROJECT_ID"}


def test_a_scope_that_sets_one_case_of_a_proxy_overrides_both_of_a_wider_one() -> None:
    """curl reads http_proxy only: the platform's would win over the machine's HTTP_PROXY."""
    made = build(PROXIED, project={"http_proxy": "http://mine:9"}, machine={"NO_PROXY": "*"}).variables

    assert (made["HTTP_PROXY"], made["http_proxy"]) == ("http://mine:9", "http://mine:9")
    assert (made["NO_PROXY"], made["no_proxy"]) == ("*", "*")


def test_a_scope_that_sets_both_cases_keeps_both() -> None:
    made = build(PROXIED, machine={"HTTP_PROXY": "a", "http_proxy": "b"}).variables

    assert (made["HTTP_PROXY"], made["http_proxy"]) == ("a", "b")


def test_the_digest_is_that_of_the_file_and_not_of_the_order_it_was_set_in() -> None:
    one, other = build(machine={"A": "1", "B": "2"}), build(machine={"B": "2", "A": "1"})

    assert one.sha256 == other.sha256 == hashlib.sha256(one.text.encode()).hexdigest()


def test_an_environment_prints_without_its_values() -> None:
    assert "sesame" not in repr(build(machine={"KEY": "sesame"}))
