"""One machine: its commands, its files and its ports, beside what `client.machines` says about machines."""

from paddock.client import executions, files, ports, transport


class Machine:
    """Made by `client.machine(machine_id)`, without asking anything; `fetch` and its like are those of `ports`."""

    def __init__(self, link: transport.Transport, machine_id: str) -> None:
        self.id = machine_id
        self.exec = executions.Executions(link, machine_id)
        self.files = files.Files(link, machine_id)
        self.ports = ports.Ports(link, machine_id)
        self.fetch = self.ports.fetch
        self.websocket = self.ports.websocket
        self.port_url = self.ports.port_url
        self.connect = self.ports.connect
