"""Addresses of the pages: the one place that knows how each is written (scripts have static/base_address.js)."""

from urllib.parse import quote, urlencode


def atlas(model: str, run: int | str) -> str:
    """The atlas page of a run."""
    return _with("/", model=model, run=run)


def neuron(model: str, name: str, run: int | str | None = None) -> str:
    """A neuron's page; without a run, that of the newest run of its layer."""
    return _with(f"/m/{quote(model, safe='')}/n/{name.replace('.', '/')}", run=run)


def lab(model: str, neuron: str) -> str:
    """The Text lab with a neuron to intervene on."""
    return _with("/lab", model=model, neuron=neuron)


def spectrum(model: str, run: int | str, neurons: str) -> str:
    """Where neurons of a run write; their names with commas."""
    return _with("/spectrum", model=model, run=run, neurons=neurons)


def compare(model: str, run: int | str) -> str:
    """A run beside another one."""
    return _with("/compare", model=model, run=run)


def frequency(model: str, run: int | str) -> str:
    """The token frequencies of a run."""
    return _with("/frequency", model=model, run=run)


def induction_job(job: int) -> str:
    """The results of an induction job."""
    return _with("/induction", job=job)


def glossary(entry: str) -> str:
    """The glossary at a term (by its anchor) or a metric (by its name)."""
    return f"/glossary#{entry}"


def feature_api(model: str, layer: int, index: int) -> str:
    """A neuron as JSON, in Neuronpedia's form."""
    return f"/api/feature/{quote(model, safe='')}/{layer}/{index}"


def run_api(run: int) -> str:
    """A run as JSON."""
    return f"/api/v1/runs/{run}"


def _with(path: str, **parameters: int | str | None) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given, safe=',')}" if given else path
