"""What a prober is told, beside what every service is."""

from typing import Annotated, ClassVar

import pydantic

from paddock.store import settings as shared


class Settings(shared.ServiceSettings):
    """Read once, in `__main__`."""

    service: ClassVar[str] = "prober"

    prober_concurrency: Annotated[
        int, pydantic.Field(gt=0, description="Machines probed at once by this process.")
    ] = 200
