"""Repositories that every new machine of a project clones."""

from paddock.client import transport
from paddock.contracts.api import methods, repositories


class Repositories:
    def __init__(self, link: transport.Transport) -> None:
        self._link = link

    async def add(
        self, project_id: str, url: str, path: str, *, branch: str | None = None, secret: str | None = None
    ) -> repositories.Repository:
        """Add a repository; machines made from now on clone it.

        Args:
            project_id: Whose.
            url: Without a user or password in it.
            path: Below the machine's home directory.
            branch: The remote's default when None.
            secret: An access token or `user:password`, for a private one; it is never answered.
        """
        with transport.checked():
            asked = repositories.RepositoryAdd(
                project_id=project_id, url=url, path=path, branch=branch, secret=secret
            )
        return await self._link.call(methods.REPOSITORY_ADD, asked)

    async def remove(self, repository_id: str) -> None:
        """Take a repository out of its project; clones in machines stay."""
        with transport.checked():
            asked = repositories.RepositoryRemove(repository_id=repository_id)
        await self._link.call(methods.REPOSITORY_REMOVE, asked)

    async def list(self, project_id: str) -> repositories.Repositories:
        """In the order they are cloned."""
        with transport.checked():
            asked = repositories.RepositoryList(project_id=project_id)
        return await self._link.call(methods.REPOSITORY_LIST, asked)
