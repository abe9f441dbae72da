"""What jobs measure of a run's neurons has a table of its own: nothing of a finished run changes"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COLUMNS = ("induction_change", "induction_change_se")
_NAMES = ", ".join(_COLUMNS)


def upgrade() -> None:
    op.create_table(
        "job_results",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("job", sa.Integer(), nullable=True),
        *(sa.Column(name, sa.Float(), nullable=True) for name in _COLUMNS),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_job_results_run_runs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_job_results_job_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "layer", "index", name=op.f("pk_job_results")),
    )
    op.execute(
        f'INSERT INTO job_results (run, layer, "index", {_NAMES}) '
        f'SELECT run, layer, "index", {_NAMES} FROM neurons WHERE induction_change IS NOT NULL'
    )
    for name in _COLUMNS:
        op.drop_column("neurons", name)


def downgrade() -> None:
    for name in _COLUMNS:
        op.add_column("neurons", sa.Column(name, sa.Float(), nullable=True))
        op.execute(
            f"UPDATE neurons SET {name} = (SELECT r.{name} FROM job_results AS r WHERE r.run = neurons.run "
            'AND r.layer = neurons.layer AND r."index" = neurons."index")'
        )
    op.drop_table("job_results")
