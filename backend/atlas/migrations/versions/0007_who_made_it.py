"""Which process carries a run out, and what its parts and those of a job were made by. Runs made before say neither"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("owner", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("made_by", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("made_from", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("made_from")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_column("made_by")
        batch_op.drop_column("owner")
