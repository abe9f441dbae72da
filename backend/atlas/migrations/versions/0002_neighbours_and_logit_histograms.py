"""Nearest neighbours by w_out, and direct logits over the vocabulary; runs made before have neither"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = ("similar_ids", "similar_values", "logit_edges", "logit_counts")


def upgrade() -> None:
    # Not in batch mode, which would copy the table: adding a nullable column is one step on both databases.
    for name in _COLUMNS:
        op.add_column("directions", sa.Column(name, sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("directions", schema=None) as batch_op:
        for name in reversed(_COLUMNS):
            batch_op.drop_column(name)
