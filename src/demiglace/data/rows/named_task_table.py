"""The named tasks (data sets): one table with labels in the order of their ids, metrics and papers.

A folder of data sets (`--data-dir`, DEMIGLACE_DATA) holds FOLDER/task/split.jsonl.zst, or another known ending, with
the columns `sentence` or `sentence1` and `sentence2`, `label` (the id or the name) and the task's `leave_out`; so a
task that is not on the hub can be added by hand. Label names and ids are those of the Hugging Face
hub wherever it has the task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from demiglace.tasks.base import RowTask
from demiglace.tasks.classification import CLASSIFICATION
from demiglace.tasks.multi_label import MULTI_LABEL
from demiglace.tasks.regression import REGRESSION
from demiglace.tasks.token_classification import TOKEN_CLASSIFICATION

LabelMap = Mapping[str, str | tuple[str, ...] | None]
"""Set label -> the model's label, or labels, that count as it; None: rows with this label are left out."""


@dataclass(frozen=True)
class NamedTask:
    """One named data set."""

    title: str
    metrics: tuple[str, ...]  # the official ones; the first selects the best epoch
    labels: tuple[str, ...]  # class names by id; empty for numbers, and for the sorted names in the data
    splits: Mapping[str, tuple[str, str]]
    """Split -> file below the data folder without its ending, the hub's name of the split. Training reports results on
    `validation` and `test`."""
    text_columns: tuple[str, ...]  # on the hub
    paper: str
    url: str
    hub: tuple[str, str | None] | None = None  # path and configuration
    kind: RowTask = CLASSIFICATION  # kind of problem
    sources: tuple[str, ...] = ()  # of an out-of-domain set: the tasks whose models it evaluates
    label_maps: tuple[LabelMap, ...] = field(default=())
    """This set's labels -> those of a source task's model; the first map that fits the model is used."""
    leave_out: str | None = None  # a boolean column; models of the source task were trained on its true rows
    groups: str = ""  # a column that names the group of each row
    note: str = ""  # how these rows differ from the official ones


def _splits(folder: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: (f"{folder}/{name}", name) for name in names}


_GLUE = "nyu-mll/glue"
_ACCURACY, _PARAPHRASE = ("accuracy",), ("accuracy", "f1")
_SENTENCE, _PAIR = ("sentence",), ("sentence1", "sentence2")
_SENTIMENT = ("negative", "positive")
_DUPLICATE = ("not_duplicate", "duplicate")
_ENTITIES = ("corporation", "creative-work", "group", "location", "person", "product")
_NLI = ("entailment", "neutral", "contradiction")
_BINARY_NLI = ("entailment", "not_entailment")
_STARS = ("1 star", "2 star", "3 stars", "4 stars", "5 stars")
_EMOTIONS = (
    *("admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire"),
    *("disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy"),
    *("love", "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral"),
)
_ADV_PAPER, _ADV_URL = "Wang et al. 2021, Adversarial GLUE", "https://arxiv.org/abs/2111.02840"
_CAD_PAPER = "Kaushik et al. 2020, Learning the Difference that Makes a Difference with Counterfactually-Augmented Data"
_CAD_URL = "https://arxiv.org/abs/1909.12434"
_ZHANG = "Zhang et al. 2015, Character-level Convolutional Networks for Text Classification"
_ZHANG_URL = "https://arxiv.org/abs/1509.01626"

_NLI_TO_BINARY: LabelMap = {
    "entailment": "entailment",
    "neutral": "not_entailment",
    "contradiction": "not_entailment",
}
_HANS_TO_NLI: LabelMap = {"entailment": "entailment", "non-entailment": ("neutral", "contradiction")}
_HANS_TO_BINARY: LabelMap = {"entailment": "entailment", "non-entailment": "not_entailment"}
_BINARY_TO_NLI: LabelMap = {"entailment": "entailment", "not_entailment": ("neutral", "contradiction")}
_STARS_TO_SENTIMENT: LabelMap = {
    "1 star": "negative",
    "2 star": "negative",
    "3 stars": None,
    "4 stars": "positive",
    "5 stars": "positive",
}
_PARAPHRASE_MAPS: tuple[LabelMap, ...] = (
    {"not_paraphrase": "not_duplicate", "paraphrase": "duplicate"},
    {"not_paraphrase": "not_equivalent", "paraphrase": "equivalent"},
)


def _adversarial(
    source: str, title: str, file: str, hub: str, labels: tuple[str, ...], columns: tuple[str, ...]
) -> NamedTask:
    metrics = _PARAPHRASE if source == "qqp" else _ACCURACY
    splits = {"validation": (f"adv_glue/{file}", "validation")}
    path = ("AI-Secure/adv_glue", hub)
    return NamedTask(
        f"AdvGLUE {title}", metrics, labels, splits, columns, _ADV_PAPER, _ADV_URL, path, sources=(source,)
    )


TASKS: dict[str, NamedTask] = {
    # GLUE, Wang et al. 2019
    "cola": NamedTask(
        "CoLA: is the sentence acceptable English?",
        ("matthews",),
        ("unacceptable", "acceptable"),
        _splits("cola", "train", "validation"),
        _SENTENCE,
        "Warstadt et al. 2019, Neural Network Acceptability Judgments",
        "https://arxiv.org/abs/1805.12471",
        (_GLUE, "cola"),
    ),
    "sst2": NamedTask(
        "SST-2: sentiment of film reviews",
        _ACCURACY,
        _SENTIMENT,
        _splits("sst2", "train", "validation"),
        _SENTENCE,
        "Socher et al. 2013, Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank",
        "https://aclanthology.org/D13-1170",
        (_GLUE, "sst2"),
    ),
    "mrpc": NamedTask(
        "MRPC: do two sentences say the same?",
        _PARAPHRASE,
        ("not_equivalent", "equivalent"),
        _splits("mrpc", "train", "validation", "test"),
        _PAIR,
        "Dolan and Brockett 2005, Automatically Constructing a Corpus of Sentential Paraphrases",
        "https://aclanthology.org/I05-5002",
        (_GLUE, "mrpc"),
    ),
    "stsb": NamedTask(
        "STS-B: similarity of two sentences, 0 to 5",
        ("pearson", "spearman"),
        (),
        _splits("stsb", "train", "validation", "test"),
        _PAIR,
        "Cer et al. 2017, SemEval-2017 Task 1: Semantic Textual Similarity",
        "https://arxiv.org/abs/1708.00055",
        (_GLUE, "stsb"),
        kind=REGRESSION,
    ),
    "qqp": NamedTask(
        "QQP: do two questions ask the same?",
        _PARAPHRASE,
        _DUPLICATE,
        _splits("qqp", "train", "validation"),
        ("question1", "question2"),
        "Iyer et al. 2017, First Quora Dataset Release: Question Pairs",
        "https://quoradata.quora.com/First-Quora-Dataset-Release-Question-Pairs",
        (_GLUE, "qqp"),
    ),
    "mnli": NamedTask(
        "MNLI: does the premise entail the hypothesis?",
        _ACCURACY,
        _NLI,
        {
            "train": ("mnli/train", "train"),
            "validation": ("mnli/validation_matched", "validation_matched"),
            "validation_mismatched": ("mnli/validation_mismatched", "validation_mismatched"),
        },
        ("premise", "hypothesis"),
        "Williams et al. 2018, A Broad-Coverage Challenge Corpus for Sentence Understanding through Inference",
        "https://arxiv.org/abs/1704.05426",
        (_GLUE, "mnli"),
        note="validation is the matched part",
    ),
    "qnli": NamedTask(
        "QNLI: does the sentence hold the answer?",
        _ACCURACY,
        _BINARY_NLI,
        _splits("qnli", "train", "validation"),
        ("question", "sentence"),
        "Rajpurkar et al. 2016, SQuAD: 100,000+ Questions for Machine Comprehension of Text",
        "https://arxiv.org/abs/1606.05250",
        (_GLUE, "qnli"),
    ),
    "rte": NamedTask(
        "RTE: does the first text entail the second?",
        _ACCURACY,
        _BINARY_NLI,
        _splits("rte", "train", "validation"),
        _PAIR,
        "Dagan et al. 2006, The PASCAL Recognising Textual Entailment Challenge (and its successors)",
        "https://doi.org/10.1007/11736790_9",
        (_GLUE, "rte"),
        label_maps=(_BINARY_TO_NLI,),
    ),
    "wnli": NamedTask(
        "WNLI: what does the pronoun mean?",
        _ACCURACY,
        ("not_entailment", "entailment"),
        _splits("wnli", "train", "validation"),
        _PAIR,
        "Levesque et al. 2012, The Winograd Schema Challenge",
        "https://aaai.org/papers/59-4492-the-winograd-schema-challenge",
        (_GLUE, "wnli"),
        note="validation repeats training sentences with the other label: below chance is usual",
    ),
    # any number of labels
    "goemotions": NamedTask(
        "GoEmotions: emotions in Reddit comments, any number of 28",
        MULTI_LABEL.default_metrics,
        _EMOTIONS,
        _splits("goemotions", "train", "validation", "test"),
        ("text",),
        "Demszky et al. 2020, GoEmotions: A Dataset of Fine-Grained Emotions",
        "https://arxiv.org/abs/2005.00547",
        ("google-research-datasets/go_emotions", "simplified"),
        kind=MULTI_LABEL,
    ),
    # tags of words
    "wnut17": NamedTask(
        "WNUT 2017: six types of rare and emerging entities in social media",
        TOKEN_CLASSIFICATION.default_metrics,
        ("O", *(f"{prefix}-{name}" for name in _ENTITIES for prefix in "BI")),
        _splits("wnut17", "train", "validation", "test"),
        ("tokens",),
        "Derczynski et al. 2017, Results of the WNUT2017 Shared Task on Novel and Emerging Entity Recognition",
        "https://aclanthology.org/W17-4418",
        kind=TOKEN_CLASSIFICATION,
    ),
    # inside the package
    "banking77": NamedTask(
        "Banking77: one of 77 intents of a bank's customer",
        ("accuracy", "macro_f1"),
        (),
        _splits("banking77", "train", "test"),
        ("text",),
        "Casanueva et al. 2020, Efficient Intent Detection with Dual Sentence Encoders",
        "https://arxiv.org/abs/2003.04807",
        note="ships with the package (CC BY 4.0); validation is split off from train",
    ),
    # out of domain, for models of the tasks in `sources`
    "adv_sst2": _adversarial("sst2", "SST-2", "sst2", "adv_sst2", _SENTIMENT, _SENTENCE),
    "adv_qqp": _adversarial("qqp", "QQP", "qqp", "adv_qqp", _DUPLICATE, ("question1", "question2")),
    "adv_mnli": _adversarial("mnli", "MNLI matched", "mnli", "adv_mnli", _NLI, ("premise", "hypothesis")),
    "adv_mnli_mismatched": _adversarial(
        "mnli", "MNLI mismatched", "mnli_mm", "adv_mnli_mismatched", _NLI, ("premise", "hypothesis")
    ),
    "adv_qnli": _adversarial("qnli", "QNLI", "qnli", "adv_qnli", _BINARY_NLI, ("question", "sentence")),
    "adv_rte": _adversarial("rte", "RTE", "rte", "adv_rte", _BINARY_NLI, _PAIR),
    "hans": NamedTask(
        "HANS: entailment where word overlap misleads",
        _ACCURACY,
        ("entailment", "non-entailment"),
        _splits("hans", "train", "validation"),
        ("premise", "hypothesis"),
        "McCoy et al. 2019, Right for the Wrong Reasons",
        "https://arxiv.org/abs/1902.01007",
        ("jhu-cogsci/hans", None),
        sources=("mnli", "rte"),
        label_maps=(_HANS_TO_NLI, _HANS_TO_BINARY),
        groups="heuristic",
    ),
    "hans_regenerated": NamedTask(
        "HANS, regenerated",
        _ACCURACY,
        ("entailment", "non-entailment"),
        _splits("hans_regenerated", "test"),
        _PAIR,
        "McCoy et al. 2019, Right for the Wrong Reasons",
        "https://arxiv.org/abs/1902.01007",
        sources=("mnli", "rte"),
        label_maps=(_HANS_TO_NLI, _HANS_TO_BINARY),
        groups="heuristic",
        note="not the official rows: generated again with the authors' generator",
    ),
    "snli": NamedTask(
        "SNLI: entailment between image captions",
        _ACCURACY,
        _NLI,
        _splits("snli", "train", "validation", "test"),
        ("premise", "hypothesis"),
        "Bowman et al. 2015, A large annotated corpus for learning natural language inference",
        "https://arxiv.org/abs/1508.05326",
        ("stanfordnlp/snli", None),
        sources=("mnli", "rte"),
        label_maps=(_NLI_TO_BINARY,),
    ),
    "cad_snli_original": NamedTask(
        "Counterfactual SNLI: the original rows",
        _ACCURACY,
        _NLI,
        _splits("cad_snli_original", "train", "validation", "test"),
        _PAIR,
        _CAD_PAPER,
        _CAD_URL,
        sources=("mnli", "rte"),
        label_maps=(_NLI_TO_BINARY,),
    ),
    "cad_snli_revised": NamedTask(
        "Counterfactual SNLI: rows revised to another label",
        _ACCURACY,
        _NLI,
        _splits("cad_snli_revised", "train", "validation", "test"),
        _PAIR,
        _CAD_PAPER,
        _CAD_URL,
        sources=("mnli", "rte"),
        label_maps=(_NLI_TO_BINARY,),
    ),
    "cad_imdb_original": NamedTask(
        "Counterfactual IMDB: the original reviews",
        _ACCURACY,
        _SENTIMENT,
        _splits("cad_imdb_original", "train", "validation", "test"),
        _SENTENCE,
        _CAD_PAPER,
        _CAD_URL,
        sources=("sst2",),
    ),
    "cad_imdb_revised": NamedTask(
        "Counterfactual IMDB: reviews revised to the other label",
        _ACCURACY,
        _SENTIMENT,
        _splits("cad_imdb_revised", "train", "validation", "test"),
        _SENTENCE,
        _CAD_PAPER,
        _CAD_URL,
        sources=("sst2",),
    ),
    "imdb": NamedTask(
        "IMDB: sentiment of full film reviews",
        _ACCURACY,
        _SENTIMENT,
        _splits("imdb", "train", "test"),
        ("text",),
        "Maas et al. 2011, Learning Word Vectors for Sentiment Analysis",
        "https://aclanthology.org/P11-1015",
        ("stanfordnlp/imdb", None),
        sources=("sst2",),
    ),
    "yelp_review_full": NamedTask(
        "Yelp: stars of reviews of businesses",
        _ACCURACY,
        _STARS,
        _splits("yelp_review_full", "train", "test"),
        ("text",),
        _ZHANG,
        _ZHANG_URL,
        ("Yelp/yelp_review_full", None),
        sources=("sst2",),
        label_maps=(_STARS_TO_SENTIMENT,),
    ),
    "amazon_review_full": NamedTask(
        "Amazon: stars of reviews of products",
        _ACCURACY,
        _STARS,
        _splits("amazon_review_full", "train", "test"),
        _SENTENCE,
        _ZHANG,
        _ZHANG_URL,
        sources=("sst2",),
        label_maps=(_STARS_TO_SENTIMENT,),
    ),
    "rotten_tomatoes_mr": NamedTask(
        "MR: sentiment of sentences of film reviews",
        _ACCURACY,
        _SENTIMENT,
        _splits("rotten_tomatoes_mr", "train", "test"),
        _SENTENCE,
        "Pang and Lee 2005, Seeing Stars",
        "https://arxiv.org/abs/cs/0506075",
        sources=("sst2",),
        leave_out="in_sst2",
        note="has no official split; sentences that are in SST-2 (column in_sst2) are left out of evaluation",
    ),
    "paws_qqp": NamedTask(
        "PAWS, the QQP part: paraphrases where word overlap misleads",
        _PARAPHRASE,
        ("not_paraphrase", "paraphrase"),
        _splits("paws_qqp", "train", "test"),
        _PAIR,
        "Zhang et al. 2019, PAWS: Paraphrase Adversaries from Word Scrambling",
        "https://arxiv.org/abs/1904.01130",
        sources=("qqp", "mrpc"),
        label_maps=_PARAPHRASE_MAPS,
        note="not PAWS-Wiki; the authors publish a generator, so copies of the rows differ",
    ),
    "twitter_url_ppdb": NamedTask(
        "Twitter-URL: paraphrases among headlines and posts",
        _PARAPHRASE,
        ("not_paraphrase", "paraphrase"),
        _splits("twitter_url_ppdb", "test"),
        _PAIR,
        "Lan et al. 2017, A Continuously Growing Dataset of Sentential Paraphrases",
        "https://arxiv.org/abs/1708.00391",
        sources=("qqp", "mrpc"),
        label_maps=_PARAPHRASE_MAPS,
        note="rows with 3 of 6 votes left out, as the authors advise",
    ),
}
