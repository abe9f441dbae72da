"""Effects through token frequencies; runs made before have none"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = (
    "direct_effect_freq", "direct_effect_freq_se", "freq_mediated", "freq_mediated_se", "delta_kl", "delta_kl_se",
    "abs_delta_kl", "abs_delta_kl_se", "freq_alignment",
)  # fmt: skip


def upgrade() -> None:
    # Not in batch mode, which would copy the table: adding a nullable column is one step on both databases.
    for name in _COLUMNS:
        op.add_column("neurons", sa.Column(name, sa.Float(), nullable=True))
    op.add_column("sampled_positions", sa.Column("kl_before", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("sampled_positions", schema=None) as batch_op:
        batch_op.drop_column("kl_before")
    with op.batch_alter_table("neurons", schema=None) as batch_op:
        for name in reversed(_COLUMNS):
            batch_op.drop_column(name)
