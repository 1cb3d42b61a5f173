"""The tables. Times are unix milliseconds by the database's clock; JSON is text, so both databases store the same.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

Ms = sa.BigInteger
Position = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite numbers rows by itself only for INTEGER keys."""


def _id(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), primary_key=key, nullable=False)


projects = sa.Table(
    "projects",
    metadata,
    _id("id", key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("provider", sa.String(40), nullable=False),
    sa.Column("image", sa.String(400), nullable=False, server_default=""),
    sa.Column("blueprint", sa.Text, nullable=False),
    sa.Column("created_at", Ms, nullable=False),
    sa.Column("updated_at", Ms, nullable=False),
    sa.Column("deleted_at", Ms),
)

access_tokens = sa.Table(
    "access_tokens",
    metadata,
    _id("id", key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("secret_hash", sa.String(64), nullable=False),
    sa.Column("created_at", Ms, nullable=False),
    sa.Column("created_by", sa.String(80), nullable=False, server_default=""),
    sa.Column("expires_at", Ms),
    sa.Column("revoked_at", Ms),
)

env_vars = sa.Table(
    "env_vars",
    metadata,
    sa.Column("scope", sa.String(10), primary_key=True),
    sa.Column("owner", sa.String(64), primary_key=True, comment="project or machine id; empty for platform"),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False, comment="encrypted"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("updated_at", Ms, nullable=False),
    sa.Column("updated_by", sa.String(80), nullable=False),
)

repositories = sa.Table(
    "repositories",
    metadata,
    _id("id", key=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False, index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("url", sa.String(2000), nullable=False),
    sa.Column("branch", sa.String(250), nullable=False, server_default=""),
    sa.Column("path", sa.String(1000), nullable=False),
    sa.Column("secret", sa.LargeBinary, comment="encrypted"),
    sa.Column("created_at", Ms, nullable=False),
    sa.UniqueConstraint("project_id", "path"),
)

machines = sa.Table(
    "machines",
    metadata,
    _id("id", key=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("provider", sa.String(40), nullable=False),
    sa.Column("image", sa.String(400), nullable=False, server_default=""),
    sa.Column("labels", sa.Text, nullable=False, server_default="{}"),
    sa.Column("client_token", sa.String(128)),
    sa.Column("request_digest", sa.String(64), nullable=False, server_default=""),
    sa.Column("phase", sa.String(20), nullable=False),
    sa.Column("phase_at", Ms, nullable=False),
    sa.Column("reason", sa.Text, comment="JSON: stage, kind, message, data, log"),
    sa.Column("limit_at", Ms),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("connection", sa.String(10), nullable=False),
    sa.Column("last_seen_at", Ms),
    sa.Column("health", sa.String(10), nullable=False),
    sa.Column("health_reason", sa.String(1000), nullable=False, server_default=""),
    sa.Column("env_desired", sa.Integer, nullable=False),
    sa.Column("env_applied", sa.Integer, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("created_at", Ms, nullable=False),
    sa.Column("active_at", Ms),
    sa.Column("deleted_at", Ms),
    sa.UniqueConstraint("project_id", "client_token"),
    sa.Index("ix_machines_listing", "project_id", "created_at", "id"),
    sa.Index("ix_machines_phase_limit", "phase", "limit_at"),
)

sandboxes = sa.Table(
    "sandboxes",
    metadata,
    sa.Column("machine_id", sa.ForeignKey("machines.id"), primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("node", sa.String(100), comment="the provisioner's host, once it was asked"),
    sa.Column("external_id", sa.String(200)),
    sa.Column("created_at", Ms, nullable=False),
    sa.Column("called_at", Ms, comment="the provider was first called"),
    sa.Column("external_at", Ms, comment="the provider answered"),
    sa.Column("ready_boot", sa.String(64)),
    sa.Column("ready_at", Ms, comment="the daemon's first ready"),
    sa.Column("daemon_version", sa.String(64), nullable=False, server_default=""),
    sa.Column("destroy_after", Ms),
    sa.Column("gone_at", Ms, comment="positively no longer at the provider"),
    sa.Column("end_reason", sa.String(1000), nullable=False, server_default=""),
)

machine_credentials = sa.Table(
    "machine_credentials",
    metadata,
    sa.Column("user_key", sa.String(64), primary_key=True),
    sa.Column("machine_id", sa.ForeignKey("machines.id"), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("issued_at", Ms, nullable=False),
    sa.Column("expires_at", Ms, nullable=False),
    sa.Column("revoked_at", Ms),
    sa.Index("ix_machine_credentials_machine", "machine_id", "generation"),
)

stage_runs = sa.Table(
    "stage_runs",
    metadata,
    sa.Column("id", Position, primary_key=True, autoincrement=True),
    sa.Column("machine_id", sa.ForeignKey("machines.id"), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("lane", sa.String(10), nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False, server_default=""),
    sa.Column("node", sa.String(100), comment="only this host may claim it"),
    sa.Column("queued_at", Ms, nullable=False),
    sa.Column("due_at", Ms, nullable=False),
    sa.Column("run", sa.Integer, nullable=False, comment="goes into call ids; bumped by a known failure"),
    sa.Column("attempt", sa.Integer, nullable=False, comment="known failures so far"),
    sa.Column("claims", sa.Integer, nullable=False, comment="fencing: who claimed last holds this number"),
    sa.Column("owner", sa.String(100), nullable=False, server_default=""),
    sa.Column("lease_until", Ms, nullable=False),
    sa.Column("limit_at", Ms, comment="end of the attempt under way"),
    sa.Column("started_at", Ms),
    sa.Column("finished_at", Ms),
    sa.Column("outcome", sa.String(20), nullable=False, server_default=""),
    sa.Column("error", sa.Text),
    sa.Column("caused_by", sa.String(64), nullable=False, server_default=""),
    sa.Index(
        "uq_stage_runs_unfinished",
        "machine_id",
        "lane",
        unique=True,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    ),
    sa.Index(
        "ix_stage_runs_due",
        "stage",
        "due_at",
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    ),
    sa.Index("ix_stage_runs_machine", "machine_id", "id"),
)

transitions = sa.Table(
    "transitions",
    metadata,
    sa.Column("machine_id", sa.ForeignKey("machines.id"), primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("phase", sa.String(20), nullable=False),
    sa.Column("at", Ms, nullable=False),
    sa.Column("actor", sa.String(80), nullable=False),
    sa.Column("event_id", sa.String(64), nullable=False),
    sa.Column("caused_by", sa.String(64), nullable=False, server_default=""),
    sa.Column("reason", sa.Text),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("position", Position, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.String(64), nullable=False, unique=True),
    sa.Column("subject", sa.String(300), nullable=False),
    sa.Column(
        "lane",
        sa.String(64),
        nullable=False,
        comment="rows of one lane leave in order: the machine or project",
    ),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Ms, nullable=False),
    sa.Column("sent_at", Ms),
    sa.Column("refusals", sa.Integer, nullable=False, server_default="0"),
    sa.Column("parked_at", Ms),
    sa.Column("last_error", sa.String(500), nullable=False, server_default=""),
    sa.Index(
        "ix_outbox_unsent",
        "position",
        sqlite_where=sa.text("sent_at IS NULL AND parked_at IS NULL"),
        postgresql_where=sa.text("sent_at IS NULL AND parked_at IS NULL"),
    ),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("owner", sa.String(100), nullable=False),
    sa.Column("until", Ms, nullable=False),
    sa.Column("beat_at", Ms, nullable=False, comment="the last renewal; a gap means nobody was there"),
)
