"""Projects: what belongs together, and the blueprint its machines are made by."""

import re
from collections.abc import AsyncIterator

from paddock.client import transport
from paddock.contracts import errors, ids
from paddock.contracts.api import base, methods, projects


class Projects:
    def __init__(self, link: transport.Transport) -> None:
        self._link = link

    async def create(
        self,
        name: str,
        *,
        provider: str | None = None,
        image: str = "",
        blueprint: projects.Blueprint | None = None,
    ) -> projects.Project:
        """Make a project; the gateway's default provider when none is given."""
        with transport.checked():
            asked = projects.ProjectCreate(
                name=name,
                provider=provider,
                image=image,
                blueprint=blueprint or projects.Blueprint(),
            )
        return await self._link.call(methods.PROJECT_CREATE, asked)

    async def get(self, project_id: str) -> projects.Project:
        with transport.checked():
            asked = projects.ProjectGet(project_id=project_id)
        return await self._link.call(methods.PROJECT_GET, asked)

    async def find(self, id_or_name: str) -> projects.Project:
        """The project people mean; an id goes before a name that looks like one.

        Raises:
            errors.NotFound: There is none.
            errors.Conflict: Several have this name.
        """
        if re.fullmatch(ids.ID_PATTERN, id_or_name):
            try:
                return await self.get(id_or_name)
            except errors.NotFound:
                pass
        named = [project async for project in self.each() if project.name == id_or_name]
        if not named:
            raise errors.NotFound(f"cannot find the project {id_or_name!r}: neither an id nor a name here")
        if len(named) > 1:
            raise errors.Conflict(
                f"cannot tell which project {id_or_name!r} is: {len(named)} have this name; give an id"
            )
        return named[0]

    async def update(
        self,
        project_id: str,
        *,
        name: str | None = None,
        provider: str | None = None,
        image: str | None = None,
        blueprint: projects.Blueprint | None = None,
    ) -> projects.Project:
        """Change what is given; what is None stays."""
        with transport.checked():
            asked = projects.ProjectUpdate(
                project_id=project_id, name=name, provider=provider, image=image, blueprint=blueprint
            )
        return await self._link.call(methods.PROJECT_UPDATE, asked)

    async def page(self, *, cursor: str | None = None, limit: int = base.PAGE_SIZE) -> projects.ProjectPage:
        with transport.checked():
            asked = projects.ProjectList(cursor=cursor, limit=limit)
        return await self._link.call(methods.PROJECT_LIST, asked)

    async def each(self) -> AsyncIterator[projects.Project]:
        """Every project, page after page."""
        cursor: str | None = None
        while True:
            page = await self.page(cursor=cursor)
            for project in page.projects:
                yield project
            cursor = page.next_cursor
            if cursor is None:
                return

    async def delete(self, project_id: str) -> None:
        """Delete a project that has no machines left.

        Raises:
            errors.InUse: It has.
        """
        with transport.checked():
            asked = projects.ProjectDelete(project_id=project_id)
        await self._link.call(methods.PROJECT_DELETE, asked)
