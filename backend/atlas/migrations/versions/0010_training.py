"""What the weights say at steps of a model's training"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "training_steps",
        sa.Column("training", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("n_neurons", sa.Integer(), nullable=False),
        sa.Column("d_model", sa.Integer(), nullable=False),
        sa.Column("norm", sa.Text(), nullable=False),
        sa.Column("null_dim", sa.Integer(), nullable=False),
        sa.Column("weights_hash", sa.Text(), nullable=False),
        sa.Column("chance", sa.JSON(), nullable=False),
        sa.Column("arrays", sa.LargeBinary(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("training", "revision", name=op.f("pk_training_steps")),
    )
    op.create_index(op.f("ix_runs_weights_hash"), "runs", ["weights_hash"])


def downgrade() -> None:
    op.drop_index(op.f("ix_runs_weights_hash"), table_name="runs")
    op.drop_table("training_steps")
