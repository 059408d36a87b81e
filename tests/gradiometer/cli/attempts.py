"""Attempts to break the command line: what is typed, the exit status, and words of the answer.

A row is (command line, status, words). In a command line stand for themselves, made anew each time:

    {out}     a folder that is not there yet          {trace}   the trace of a small run
    {study}   the folder of a small study             {file:x}  the file x of `FILES`
    {fifo} {loop} {folder} {readonly} {zero}          what is no regular file

Status 0 is done, 1 failed, 2 refused. A refusal is one line on the standard error stream that names
the value, and what would be accepted.
"""

# name -> content of files that describe nothing
FILES: dict[str, bytes] = {
    "empty.toml": b"",
    "blank.toml": b" \n\t\n",
    "good.toml": b"layers = 2\nwidth = 2\nsteps = 2\n",
    "bom.toml": b"\xef\xbb\xbflayers = 2\nwidth = 2\nsteps = 2\n",
    "binary.toml": bytes(range(256)),
    "latin1.toml": b"activation = 'caf\xe9'\n",
    "null.toml": b"layers = 3\0\n",
    "text.toml": b"layers: 3\n",
    "twice.toml": b"layers = 3\nlayers = 4\n",
    "words.toml": b'layers = "three"\n',
    "float.toml": b"layers = 3.0\n",
    "bool.toml": b"layers = true\n",
    "list.toml": b"layers = [1, 2]\n",
    "nan.toml": b"learning_rate = nan\n",
    "inf.toml": b"learning_rate = inf\n",
    "date.toml": b"layers = 2020-01-01\n",
    "table.toml": b"[layers]\na = 1\n",
    "misspelt.toml": b"layer = 3\n",
    "unknown.toml": b"colour = 'red'\n",
    "digits.toml": b"layers = " + b"9" * 5000 + b"\n",
    "hexadecimal.toml": b"layers = 0x" + b"f" * 5000 + b"\n",
    "brackets.toml": b"x = " + b"[" * 1000 + b"]" * 1000,
    "brackets300.toml": b"x = " + b"[" * 300 + b"]" * 300,
    "braces.toml": b"x = " + b"{a=" * 1000 + b"1" + b"}" * 1000,
    "dotted.toml": b".".join([b"a"] * 20_000) + b" = 1",
    "heading.toml": b"[" + b".".join([b"a"] * 20_000) + b"]\n",
    "long.toml": b"activation = '" + b"x" * 10**6 + b"'\n",
    "newline.toml": b"activation = 'a\\nb\\u001b[31m'\n",
    "quantities.toml": b"quantities = ['loss']\n",
    "hyper.toml": b"[hyperparameters]\nbeta = 'x'\n",
    "enormous.toml": b"layers = 1000000000\nwidth = 1000000000\n",
    "s-good.toml": b"[base]\nsteps = 2\nwidth = 2\n[over]\nlayers = [1]\n",
    "s-empty-axis.toml": b"[over]\nlayers = []\n",
    "s-number-axis.toml": b"[over]\nlayers = 3\n",
    "s-word-axis.toml": b"[over]\nlayers = 'abc'\n",
    "s-twice.toml": b"[over]\nlayers = [1, 1]\n",
    "s-unknown.toml": b"[over]\ncolour = [1]\n",
    "s-members.toml": b"[over]\nmembers = [1, 2]\n",
    "s-zero-members.toml": b"members = 0\n",
    "s-many-members.toml": b"members = 1000000000000\n",
    "s-base-number.toml": b"base = 3\n",
    "s-base-key.toml": b"[base]\ncolour = 1\n",
    "s-experiments.toml": b"experiments = 3\n",
    "s-no-experiments.toml": b"experiments = []\n",
    "s-experiments-list.toml": b"experiments = [1]\n",
    "s-name.toml": b"name = '../x'\n",
    "s-name-number.toml": b"name = 3\n",
    "s-both.toml": b"[over]\nlayers = [1]\n[[experiments]]\nlayers = 2\n",
    "s-timeout.toml": b"timeout = 0\n",
    "s-timeout-nan.toml": b"timeout = nan\n",
    "s-timeout-word.toml": b"timeout = 'soon'\n",
    "s-product.toml": b"[over]\n"
    + b"".join(
        name + b" = [" + b", ".join(b"%d" % i for i in range(1, 1001)) + b"]\n"
        for name in (b"layers", b"width", b"steps")
    ),
    "not.nc": b"not a trace",
    "hdf5.nc": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
    "empty.nc": b"",
}

SMALL = "--layers 1 --width 2 --steps 2"

# --- settings, each with a value that is none of its ----------------------------------------------

OF_SETTINGS = [
    # wrong types: typer's own words
    *[
        (f"run --{flag} {value} --out {{out}}", 2, f"Invalid value for '--{flag}'")
        for flag in ("layers", "width", "steps", "batch-size", "seed", "members", "every")
        for value in ("three", "1.5", "nan", "''")
    ],
    *[
        (f"run --{flag} {value} --out {{out}}", 2, f"Invalid value for '--{flag}'")
        for flag in ("learning-rate", "init-scale", "clip")
        for value in ("fast", "''", "1,5")
    ],
    # out of range
    *[
        (f"run --{flag} {value} --out {{out}}", 2, f"{flag.replace('-', '_')}: input should be")
        for flag in ("layers", "width", "steps", "batch-size", "members", "every")
        for value in ("0", "-1", "1000000000000")
    ],
    ("run --seed -1 --out {out}", 2, "seed: input should be greater"),
    ("run --seed 99999999999999999999999 --out {out}", 2, "seed: input should be less"),
    *[
        (f"run --{flag} {value} --out {{out}}", 2, f"{flag.replace('-', '_')}: input should be")
        for flag in ("learning-rate", "init-scale")
        for value in ("0", "-1", "nan", "inf", "1e999")
    ],
    *[
        (f"run --{flag} {value} --out {{out}}", 2, words)
        for flag, words in (
            ("activation", "unknown activation"),
            ("init", "unknown initialiser"),
            ("optimizer", "unknown optimiser"),
            ("data", "unknown data set"),
        )
        for value in ("sigmoud", "''", "' '", "ünïcödé", "0")
    ],
    *[
        (f"run --{flag} nonsense --out {{out}}", 2, f"{flag}: input should be")
        for flag in ("normalisation", "loss", "reduction", "dtype")
    ],
    *[
        (f"run --scaling {value} --out {{out}}", 2, "'raw' or a number above 0")
        for value in ("0", "-1", "nan", "inf", "''", "loud")
    ],
    ("run --scaling 1e308 --out {out}", 2, "overflows"),
    ("run --clip 2 --activation tanh --out {out}", 2, "only relu can be clipped"),
    ("run --clip 0 --activation relu --out {out}", 2, "clip: input should be greater"),
    ("run --hyperparameter beta --out {out}", 2, "NAME=NUMBER"),
    ("run --hyperparameter = --out {out}", 2, "NAME=NUMBER"),
    ("run --hyperparameter beta=x --out {out}", 2, "NAME=NUMBER"),
    ("run --hyperparameter beta=0.5 --out {out}", 2, "unknown hyperparameter of sgd"),
    ("run --hyperparameter alpha=1 --out {out}", 2, "alpha is the learning rate"),
    ("run --optimizer momentum --hyperparameter beta=1 --out {out}", 2, "must lie in [0, 1)"),
    ("run --optimizer momentum --hyperparameter beta=nan --out {out}", 2, "must lie in [0, 1)"),
    ("run --optimizer adam --hyperparameter epsilon=0 --out {out}", 2, "epsilon"),
    ("run --quantity speed --out {out}", 2, "speed"),
    ("run --quantity dead_fraction --out {out}", 2, "grad_mean_abs or grad_rms"),
    ("run --quantity '' --out {out}", 2, "quantity"),
]

# --- what cannot be made --------------------------------------------------------------------------

TOO_LARGE = [
    ("run --layers 1000000000 --out {out}", 2, "lower layers (1000000000)"),
    ("run --width 1000000000 --out {out}", 2, "lower width (1000000000)"),
    ("run --members 1000000000 --out {out}", 2, "lower members (1000000000)"),
    ("run --batch-size 1000000000 --out {out}", 2, "lower batch_size (1000000000)"),
    ("run --steps 1000000000 --out {out}", 2, "lower steps (1000000000)"),
    ("run --steps 1000000000 --histograms --out {out}", 2, "or record less, with every"),
    ("run --layers 1000000000 --width 1000000000 --out {out}", 2, "of memory"),
    ("run {file:enormous.toml} --out {out}", 2, "of memory"),
    ("predict --layers 1000000000 --out {out}.png", 2, "at most 2000 hidden layers"),
    ("predict --width 1000000000 --out {out}.png", 0, ""),  # no net is made
    ("predict --steps 3 --out {out}.png", 2, "because nothing is trained; run does"),
    ("predict --batch-size 1000000000 --out {out}.png", 0, ""),
    ("study {file:s-product.toml} --out {out}", 2, "1000000000 experiments"),
    ("study {file:s-many-members.toml} --out {out}", 2, "members"),
    ("study {file:s-good.toml} --members 1000000000000 --out {out}", 2, "members"),
    ("study {file:s-good.toml} --workers 1000000 --out {out}", 2, "workers must be at most"),
    ("prove --seeds 1000000000 --out {out}", 2, "seeds must be a whole number from 5"),
]

# --- files that describe nothing ------------------------------------------------------------------

DESCRIBING_NOTHING = [
    ("binary.toml", "not a TOML file"),
    ("latin1.toml", "not a TOML file"),
    ("null.toml", "not a TOML file"),
    ("text.toml", "not a TOML file"),
    ("twice.toml", "not a TOML file"),
    ("digits.toml", "not a TOML file"),
    ("hexadecimal.toml", "an integer of 20000 bits"),
    ("brackets.toml", "nested"),
    ("brackets300.toml", "nested"),
    ("braces.toml", "nested"),
    ("dotted.toml", "a key of more than 100 parts"),
    ("heading.toml", "a key of more than 100 parts"),
    ("unknown.toml", "colour"),
    ("misspelt.toml", "layer"),
]
OF_EXPERIMENTS = [
    ("words.toml", "layers: input should be a valid integer"),
    ("float.toml", "layers: input should be a valid integer"),
    ("bool.toml", "layers: input should be a valid integer"),
    ("list.toml", "layers: input should be a valid integer"),
    ("nan.toml", "learning_rate: input should be a finite number"),
    ("inf.toml", "learning_rate: input should be a finite number"),
    ("date.toml", "layers: input should be a valid integer"),
    ("table.toml", "layers: input should be a valid integer"),
    ("long.toml", "unknown activation"),
    ("newline.toml", "unknown activation"),
    ("quantities.toml", "loss"),
    ("hyper.toml", "hyperparameters"),
]
OF_STUDIES = [
    ("s-empty-axis.toml", "layers has no values"),
    ("s-number-axis.toml", "layers takes a list of values"),
    ("s-word-axis.toml", "layers takes a list of values"),
    ("s-twice.toml", "more than once"),
    ("s-unknown.toml", "unknown setting 'colour'"),
    ("s-members.toml", "members are the same in all experiments"),
    ("s-zero-members.toml", "members"),
    ("s-base-number.toml", "a table [base]"),
    ("s-base-key.toml", "unknown setting 'colour'"),
    ("s-experiments.toml", "[[experiments]]"),
    ("s-no-experiments.toml", "at least one experiment"),
    ("s-experiments-list.toml", "tables of settings"),
    ("s-name.toml", "fit for a folder"),
    ("s-name-number.toml", "fit for a folder"),
    ("s-both.toml", "given both"),
    ("s-timeout.toml", "timeout must be a number of seconds above 0"),
    ("s-timeout-nan.toml", "timeout must be a number of seconds above 0"),
    ("s-timeout-word.toml", "timeout must be a number of seconds above 0"),
]
NOT_REGULAR = [
    ("{fifo}", "named pipe"),
    ("{zero}", "device"),
    ("{loop}", "symbolic links"),
]
OF_FILES = [
    *[
        (f"{verb} {{file:{name}}} --out {{out}}", 2, words)
        for verb in ("run", "study", "predict")
        for name, words in DESCRIBING_NOTHING
        if (verb, name) != ("study", "misspelt.toml")
    ],
    *[(f"run {{file:{name}}} --out {{out}}", 2, words) for name, words in OF_EXPERIMENTS],
    *[(f"study {{file:{name}}} --out {{out}}", 2, words) for name, words in OF_STUDIES],
    *[
        (f"{verb} {place} --out {{out}}", 2, words)
        for verb in ("run", "study", "predict")
        for place, words in NOT_REGULAR
    ],
    ("run {folder} --out {out}", 2, "folder"),
    ("predict {folder} --out {out}.png", 2, "folder"),
    ("study {folder} --out {out}", 2, "not the folder of a study"),
    ("run nowhere.toml --out {out}", 2, "cannot be read"),
    ("run '' --out {out}", 2, "a path must not be empty"),
    ("study nowhere --out {out}", 2, "neither a file"),
    ("study '' --out {out}", 2, ""),
    ("run {file:empty.toml} " + SMALL + " --out {out}", 0, ""),
    ("run {file:blank.toml} " + SMALL + " --describe --out {out}", 2, "No such option"),
    ("run {file:bom.toml} --out {out}", 0, ""),
    ("run {file:good.toml} --layers 0 --out {out}", 2, "layers: input should be greater"),
]

# --- traces that are none -------------------------------------------------------------------------

OF_TRACES = [
    *[
        (f"{verb} {place}{more}", 2, words)
        for verb, more in (
            ("plot", " --out {out}.png"),
            ("export", " --to csv --out {out}.csv"),
            ("diagnose", ""),
        )
        for place, words in (
            ("{file:not.nc}", "not a readable netCDF file"),
            ("{file:hdf5.nc}", "not a readable netCDF file"),
            ("{file:empty.nc}", "not a readable netCDF file"),
            ("nowhere.nc", "no such file"),
            ("{folder}", "no such file"),
            ("{fifo}", "it is a named pipe, not a regular file"),
            ("{zero}", "it is a device, not a regular file"),
            ("{loop}", "symbolic links"),
            ("{file:not.nc}/below", "Not a directory"),
            ("x" * 300, "File name too long"),
            ("''", "a path must not be empty"),
        )
    ],
    ("plot {trace} --figure pie --out {out}.png", 2, "unknown figure 'pie'"),
    ("plot {trace} --figure '' --out {out}.png", 0, ""),
    ("plot {trace} --out {out}.xyz", 2, "must end in one of"),
    ("plot {trace} --out {out}", 2, "must end in one of"),
    ("plot {trace} --out {folder}", 2, "must end in one of"),
    ("plot {trace} --out nowhere/figure.png", 2, "cannot be written"),
    ("plot {trace} --figure learning --theory --out {out}.png", 2, "theory can be shown in"),
    ("diagnose {trace}", 0, ""),
    ("diagnose {trace} --json", 0, "verdicts"),
    ("diagnose {trace} --try --budget 0.001", 0, ""),
    ("diagnose {trace} --try --budget 0", 2, "must be a number of seconds above 0"),
    ("export {trace}", 2, "the format must be given"),
    ("export {trace} --to xml", 2, "unknown format 'xml'"),
    ("export {trace} --to '' --out {out}", 2, "format"),
    ("export {trace} --to csv --out {out}.parquet", 2, "the ending says parquet"),
    ("export {trace} --to csv --out {trace}", 2, "is the trace itself"),
    ("export {trace} --to csv --out nowhere/x.csv", 2, "cannot be written"),
    ("export {trace} --to csv --out {folder}", 2, "cannot be written"),
    ("export {trace} --to csv --out {out}.csv", 0, ""),
]

# --- outputs that cannot be written ---------------------------------------------------------------

OF_OUTPUTS = [
    *[
        (f"{command} --out {place}", 2, "cannot be")
        for command in (
            "run " + SMALL,
            "study {file:s-good.toml} --workers 1",
            "prove relu-slope --seeds 5",
        )
        for place in ("{file:not.nc}", "{file:not.nc}/below", "/proc/nowhere", "{fifo}")
    ],
    *[
        (f"{command} --out ''", 2, "a path must not be empty")
        for command in (
            "run " + SMALL,
            "study {file:s-good.toml}",
            "prove relu-slope --seeds 5",
            "predict --layers 1",
            "activations sigmoid",
            "plot {trace}",
            "export {trace} --to csv",
            "export {trace} --to tensorboard",
        )
    ],
    ("predict --layers 1 --out {folder}", 2, "must end in one of"),
    ("predict --layers 1 --out nowhere/x.png", 2, "cannot be written"),
    ("activations --out {out}.xyz", 2, "must end in one of"),
    ("activations --out {folder}", 2, "must end in one of"),
    ("activations --out nowhere/x.png", 2, "cannot be written"),
    ("activations sigmoud --out {out}.png", 2, "unknown activation"),
    ("activations '' --out {out}.png", 2, "unknown activation"),
    ("activations sigmoid --out {out}.png", 0, ""),
]

# --- options --------------------------------------------------------------------------------------

OF_OPTIONS = [
    ("", 2, "Usage"),
    ("--help", 0, ""),
    ("--version", 0, ""),
    *[
        (f"{verb} --help", 0, "")
        for verb in (
            "run",
            "predict",
            "study",
            "prove",
            "diagnose",
            "plot",
            "activations",
            "export",
        )
    ],
    *[
        (f"{verb} --nonsense", 2, "No such option")
        for verb in (
            "run",
            "predict",
            "study",
            "prove",
            "diagnose",
            "plot",
            "activations",
            "export",
        )
    ],
    ("nonsense", 2, "No such command"),
    ("Run", 2, "No such command"),
    ("--nonsense", 2, "No such option"),
    ("run --layers", 2, "requires an argument"),
    ("run a b", 2, "unexpected extra argument"),
    ("plot", 2, "Missing argument"),
    ("export", 2, "Missing argument"),
    ("run --residual=yes --out {out}", 2, "does not take a value"),
    ("run --layers 1 --layers x --out {out}", 2, "Invalid value for '--layers'"),
    *[
        (f"run --timeout {value} --out {{out}}", 2, "timeout must be a number of seconds above 0")
        for value in ("0", "-1", "nan", "inf")
    ],
    ("run --stop-on wrong --out {out}", 2, "unknown kind of verdict 'wrong'. Known: vanishing"),
    ("run --try --budget 0 --out {out}", 2, "budget must be a number of seconds above 0"),
    ("run --budget 3 --out {out}", 2, "--budget is the time for --try, which was not given"),
    ("run --timeout soon --out {out}", 2, "Invalid value for '--timeout'"),
    *[
        (f"study {{file:s-good.toml}} --{flag} {value} --out {{out}}", 2, words)
        for flag, value, words in (
            ("timeout", "0", "timeout must be"),
            ("timeout", "nan", "timeout must be"),
            ("workers", "0", "workers must be"),
            ("workers", "-1", "workers must be"),
            ("workers", "x", "Invalid value"),
            ("at-once", "0", "at_once must be"),
            ("attempts", "0", "attempts must be"),
            ("members", "0", "members must be"),
            ("members", "1.5", "Invalid value"),
        )
    ],
    ("study {file:s-good.toml} --cluster x --workers 2 --out {out}", 2, "cluster"),
    ("study {file:s-good.toml} --describe", 0, ""),
    ("study {study} --out {study}", 2, "holds a study already"),
    ("study", 0, ""),
    ("run --theory --normalisation layer --out {out}", 2, "theory covers"),
    ("run --theory --residual --out {out}", 2, "theory covers"),
    ("predict --normalisation batch --out {out}.png", 2, "theory covers"),
    ("prove --list", 0, ""),
    ("prove nonsense --out {out}", 2, "unknown claim 'nonsense'"),
    ("prove '' --out {out}", 2, "unknown claim"),
    ("prove --seeds 4 --out {out}", 2, "seeds must be a whole number from 5"),
    ("prove --seeds 0 --out {out}", 2, "seeds must be a whole number from 5"),
    ("prove --seeds -5 --out {out}", 2, "seeds must be a whole number from 5"),
    ("prove --seeds ten --out {out}", 2, "Invalid value for '--seeds'"),
    ("prove --first-seed -1 --out {out}", 2, "first_seed must be"),
    ("prove relu-slope --first-seed 99999999999999999999 --out {out}", 2, "first_seed must be"),
    ("prove relu-slope --seeds 5 --out {out}", 0, ""),
    ("plot {study} --figure heatmap --out {out}.png", 2, "unknown figure 'heatmap'"),
    ("plot {study} --theory --out {out}.png", 2, "theory can be shown in"),
]

ATTEMPTS = [
    *OF_SETTINGS,
    *TOO_LARGE,
    *OF_FILES,
    *OF_TRACES,
    *OF_OUTPUTS,
    *OF_OPTIONS,
]

# --- surroundings: as processes, since a runner within one has none -------------------------------

# what is set (None removes it), the command line, the statuses it may end with
SURROUNDINGS: list[tuple[dict[str, str | None], str, set[int]]] = [
    ({"HOME": None, "XDG_CACHE_HOME": None}, "run " + SMALL + " --out {out}", {0}),
    ({"HOME": "/nowhere"}, "activations sigmoid --out {out}.png", {0}),
    ({"TERM": None, "COLUMNS": "1"}, "run " + SMALL + " --out {out}", {0}),
    ({"COLUMNS": "1"}, "run --help", {0}),
    ({"COLUMNS": "0"}, "run --nonsense", {2}),
    ({"COLUMNS": "x", "LINES": "x"}, "prove --list", {0}),
    ({"TERM": "dumb"}, "study {file:s-good.toml} --workers 1 --out {out}", {0}),
    (
        {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        "plot {trace} --out {out}.png",
        {0},
    ),
    ({"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, "run --activation ünïcödé --out {out}", {2}),
    ({"MPLBACKEND": "nonsense"}, "plot {trace} --out {out}.png", {0, 2}),
    ({"PYTHONWARNINGS": "error"}, "run {file:enormous.toml} --out {out}", {2}),
    ({"GRADIOMETER_TRACEBACK": ""}, "run --layers 0 --out {out}", {2}),
]
# how its streams are, as the shell writes it
STREAMS: list[tuple[str, str, set[int]]] = [
    ("| head -1", "run --help", {0}),
    ("| head -1", "prove --list", {0}),
    ("| true", "study", {0, 1}),
    ("| true", "activations sigmoid --out {out}.png", {0, 1}),
    (">&-", "run " + SMALL + " --out {out}", {0}),
    ("2>&-", "run --layers 0 --out {out}", {2}),
    ("<&-", "run " + SMALL + " --out {out}", {0}),
    (">&- 2>&- <&-", "predict --layers 1 --out {out}.png", {0}),
    ("> /dev/full", "prove --list", {0, 1, 2}),
    ("< /dev/zero", "run --layers 0 --out {out}", {2}),
]
