"""What a provisioner is told, beside what every service is."""

import pathlib
from typing import Annotated, ClassVar

import pydantic

from paddock.store import settings as shared


class Settings(shared.ServiceSettings):
    """Read once, in `__main__`."""

    service: ClassVar[str] = "provisioner"

    provisioner_data: Annotated[
        pathlib.Path,
        pydantic.Field(description="Where this host keeps its sandboxes' records, logs and homes."),
    ]
    provisioner_runtime_dir: Annotated[
        pathlib.Path | None,
        pydantic.Field(
            description="A virtual environment with paddock-daemon installed, not editable; the service's own unless given."
        ),
    ] = None
    provisioner_machine_nats: Annotated[
        str, pydantic.Field(description="Where machines find the bus, when that differs from where we do.")
    ] = ""
    provisioner_unsafe_process_provider: Annotated[
        bool, pydantic.Field(description="Allow machines without any isolation; for development only.")
    ] = False
    provisioner_readonly_paths: Annotated[
        tuple[pathlib.Path, ...],
        pydantic.Field(description="More of this host to show in every bubblewrap sandbox, read-only."),
    ] = ()
    provisioner_nice: Annotated[
        int, pydantic.Field(ge=0, le=19, description="By how much sandboxes yield to the control plane.")
    ] = 5
    provisioner_concurrency: Annotated[
        int, pydantic.Field(gt=0, description="Machines worked on at once by this process.")
    ] = 200
    provisioner_boots_at_once: Annotated[
        int, pydantic.Field(ge=0, description="Sandboxes that boot at once; 0 is one for each processor.")
    ] = 0
    provisioner_orphan_s: Annotated[
        float,
        pydantic.Field(
            gt=0, description="A sandbox nobody knows is removed at this age; above one attempt's limit."
        ),
    ] = 360.0

    @property
    def machine_nats(self) -> str:
        return self.provisioner_machine_nats or self.nats
