"""How often each token occurs, as a run takes it; runs made before have none"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unigrams",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("p", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_unigrams_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", name=op.f("pk_unigrams")),
    )


def downgrade() -> None:
    op.drop_table("unigrams")
