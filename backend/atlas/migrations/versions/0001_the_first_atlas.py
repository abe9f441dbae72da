"""The first atlas"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("n_layers", sa.Integer(), nullable=False),
        sa.Column("d_model", sa.Integer(), nullable=False),
        sa.Column("d_mlp", sa.Integer(), nullable=False),
        sa.Column("d_vocab", sa.Integer(), nullable=False),
        sa.Column("norm", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("vocabulary", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_models")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("corpus", sa.Text(), nullable=False),
        sa.Column("corpus_hash", sa.Text(), nullable=False),
        sa.Column("weights_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("sequences", sa.Integer(), nullable=False),
        sa.Column("seq_len", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("null_dim", sa.Integer(), nullable=False),
        sa.Column("tokens_sampled", sa.Integer(), nullable=False),
        sa.Column("tokens_counted", sa.Integer(), nullable=False),
        sa.Column("tokens_total", sa.Integer(), nullable=False),
        sa.Column("mean_loss", sa.Float(), nullable=True),
        sa.Column("mean_entropy", sa.Float(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.slug"], name=op.f("fk_runs_model_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_runs_fingerprint")),
    )
    op.create_table(
        "contexts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("token_ids", sa.LargeBinary(), nullable=False),
        sa.Column("tokens", sa.JSON(), nullable=False),
        sa.Column("loss", sa.LargeBinary(), nullable=False),
        sa.Column("entropy", sa.LargeBinary(), nullable=False),
        sa.Column("rank", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_contexts_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contexts")),
    )
    with op.batch_alter_table("contexts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_contexts_run"), ["run"], unique=False)

    op.create_table(
        "directions",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("cosines", sa.LargeBinary(), nullable=True),
        sa.Column("top_ids", sa.LargeBinary(), nullable=True),
        sa.Column("top_values", sa.LargeBinary(), nullable=True),
        sa.Column("bottom_ids", sa.LargeBinary(), nullable=True),
        sa.Column("bottom_values", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_directions_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "index", name=op.f("pk_directions")),
    )
    op.create_table(
        "histograms",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("edges", sa.LargeBinary(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_histograms_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "index", name=op.f("pk_histograms")),
    )
    op.create_table(
        "neurons",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("neuron_class", sa.Text(), nullable=False),
        sa.Column("effect_tokens", sa.Integer(), nullable=False),
        sa.Column("weight_norm", sa.Float(), nullable=True),
        sa.Column("logit_var", sa.Float(), nullable=True),
        sa.Column("null_fraction", sa.Float(), nullable=True),
        sa.Column("mean_activation", sa.Float(), nullable=True),
        sa.Column("mean_activation_se", sa.Float(), nullable=True),
        sa.Column("std_activation", sa.Float(), nullable=True),
        sa.Column("min_activation", sa.Float(), nullable=True),
        sa.Column("max_activation", sa.Float(), nullable=True),
        sa.Column("skew_activation", sa.Float(), nullable=True),
        sa.Column("kurtosis_activation", sa.Float(), nullable=True),
        sa.Column("fraction_positive", sa.Float(), nullable=True),
        sa.Column("total_effect", sa.Float(), nullable=True),
        sa.Column("total_effect_se", sa.Float(), nullable=True),
        sa.Column("direct_effect_ln", sa.Float(), nullable=True),
        sa.Column("direct_effect_ln_se", sa.Float(), nullable=True),
        sa.Column("ln_mediated", sa.Float(), nullable=True),
        sa.Column("ln_mediated_se", sa.Float(), nullable=True),
        sa.Column("delta_loss", sa.Float(), nullable=True),
        sa.Column("delta_loss_se", sa.Float(), nullable=True),
        sa.Column("delta_entropy", sa.Float(), nullable=True),
        sa.Column("delta_entropy_se", sa.Float(), nullable=True),
        sa.Column("abs_delta_entropy", sa.Float(), nullable=True),
        sa.Column("abs_delta_entropy_se", sa.Float(), nullable=True),
        sa.Column("delta_reciprocal_rank", sa.Float(), nullable=True),
        sa.Column("delta_reciprocal_rank_se", sa.Float(), nullable=True),
        sa.Column("prediction_change", sa.Float(), nullable=True),
        sa.Column("prediction_change_se", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_neurons_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "layer", "index", name=op.f("pk_neurons")),
    )
    op.create_table(
        "sampled_positions",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.JSON(), nullable=False),
        sa.Column("targets", sa.JSON(), nullable=False),
        sa.Column("loss_before", sa.LargeBinary(), nullable=False),
        sa.Column("entropy_before", sa.LargeBinary(), nullable=False),
        sa.Column("rank_before", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_sampled_positions_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", name=op.f("pk_sampled_positions")),
    )
    op.create_table(
        "shards",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("arrays", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_shards_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "stage", "index", name=op.f("pk_shards")),
    )
    op.create_table(
        "spectra",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("singular_values", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_spectra_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", name=op.f("pk_spectra")),
    )
    op.create_table(
        "token_effects",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("arrays", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_token_effects_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "index", name=op.f("pk_token_effects")),
    )
    op.create_table(
        "traces",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("context", sa.Integer(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("activations", sa.LargeBinary(), nullable=False),
        sa.Column("peak", sa.Float(), nullable=False),
        sa.Column("peak_position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["context"], ["contexts.id"], name=op.f("fk_traces_context_contexts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["run"], ["runs.id"], name=op.f("fk_traces_run_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_traces")),
        sa.UniqueConstraint("run", "index", "context", name="uq_traces_run_index_context"),
    )
    with op.batch_alter_table("traces", schema=None) as batch_op:
        batch_op.create_index("ix_traces_run_index", ["run", "index"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("traces", schema=None) as batch_op:
        batch_op.drop_index("ix_traces_run_index")

    op.drop_table("traces")
    op.drop_table("token_effects")
    op.drop_table("spectra")
    op.drop_table("shards")
    op.drop_table("sampled_positions")
    op.drop_table("neurons")
    op.drop_table("histograms")
    op.drop_table("directions")
    with op.batch_alter_table("contexts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_contexts_run"))

    op.drop_table("contexts")
    op.drop_table("runs")
    op.drop_table("models")
