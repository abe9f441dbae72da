"""What was measured: a run's card, its chance lines and groups; a neuron's marks. Runs made before have none"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("card", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("chance", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("error_groups", sa.Integer(), nullable=True))
    op.add_column("neurons", sa.Column("fraction_positive_se", sa.Float(), nullable=True))
    op.add_column("neurons", sa.Column("paper_criterion", sa.Boolean(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("neurons", schema=None) as batch_op:
        batch_op.drop_column("paper_criterion")
        batch_op.drop_column("fraction_positive_se")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_column("error_groups")
        batch_op.drop_column("chance")
        batch_op.drop_column("card")
