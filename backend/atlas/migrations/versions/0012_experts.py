"""How many experts a layer has, and how large they are. Models measured before have none"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("models", "training_steps"):
        op.add_column(table, sa.Column("n_experts", sa.Integer(), nullable=True))
        op.add_column(table, sa.Column("d_expert", sa.Integer(), nullable=True))


def downgrade() -> None:
    for table in ("training_steps", "models"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("d_expert")
            batch_op.drop_column("n_experts")
