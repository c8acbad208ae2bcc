"""Two models share the work by language: which reads a context, by whose thresholds; offsets hold in any script.

The second model is the bundled one under another name and other thresholds, so that only the choice is tested.
"""

import copy
import itertools
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ctxprune.bundled
from ctxprune import Context, Document, Pipeline, load
from ctxprune.calibration import OperatingPoints
from ctxprune.compressors.provence import compressor as provence
from ctxprune.compressors.provence.compressor import Provence, load_model, shared_model
from ctxprune.compressors.provence.pruner import Passage
from ctxprune.compressors.readings import MemoryCache
from ctxprune.errors import UnknownNameError
from ctxprune.eval.run.compress import Replay, _about, pack, unpack
from ctxprune.select import Policy
from ctxprune.text.language import reads_as_english
from ctxprune.tokens import default_counter

ENGLISH = "The mill at Orvel was built in 1788 by two brothers. It ground oats for the valley. Today it is a museum."
RUSSIAN = (
    "Мельницу в Орвеле построили в 1788 году два брата. Она молола овёс для всей долины. "
    "Сегодня в ней музей, который летом открыт."
)
GERMAN = "Die Mühle wurde 1788 von zwei Brüdern gebaut. Heute ist sie ein Museum, das im Sommer geöffnet ist."
TEXTS = {
    "ru": ("Когда построили мельницу?", "Мельницу построили в 1788 году. Летом она открыта. Там продают хлеб."),
    "el": ("Πότε χτίστηκε ο μύλος;", "Ο μύλος χτίστηκε το 1788. Το καλοκαίρι είναι ανοιχτός. Εκεί πουλάνε ψωμί."),
    "ar": ("متى بنيت الطاحونة؟", "بنيت الطاحونة عام 1788. تفتح في الصيف. يباع فيها الخبز."),
    "hi": ("चक्की कब बनी थी?", "चक्की 1788 में बनी थी। यह गर्मियों में खुली रहती है। वहाँ रोटी बिकती है।"),
    "th": ("โรงสีสร้างเมื่อใด", "โรงสีสร้างในปี 1788 เปิดในฤดูร้อน มีขนมปังขาย"),
    "ja": ("水車小屋はいつ建てられましたか。", "水車小屋は１７８８年に建てられた。夏に開いている。パンを売っている。"),
    "zh": ("磨坊是什么时候建的？", "磨坊建于1788年。夏天开放。那里卖面包。"),
    "ko": ("방앗간은 언제 지어졌나요?", "방앗간은 1788년에 지어졌다. 여름에 문을 연다. 그곳에서 빵을 판다."),
}  # fmt: skip


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "second-mini"
    shutil.copytree(Path(ctxprune.bundled.__file__).parent / "provence-mini", folder)
    config = json.loads((folder / "pruner.json").read_text())
    config |= {"operating_points": {"safe": 0.51, "balanced": 0.52, "aggressive": 0.53}, "floor": 0.41}
    (folder / "pruner.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def both(second: Path) -> Provence:
    made = load("provence", other_languages=str(second))
    assert isinstance(made, Provence)
    return made


@pytest.mark.parametrize(
    ("question", "documents", "english"),
    [
        ("When was the mill built?", [ENGLISH], True),
        ("Когда построили мельницу?", [RUSSIAN], False),
        ("Когда построили мельницу?", [ENGLISH], False),
        ("When was the mill built?", [RUSSIAN], False),
        ("When was the mill built?", [ENGLISH, ENGLISH, RUSSIAN], False),
        ("When was the mill built?", [ENGLISH] * 9 + [RUSSIAN], True),
        ("mill Orvel 1788", [ENGLISH], True),
        ("Orvel 1788", [RUSSIAN], False),
        ("Wann wurde die Mühle gebaut?", [GERMAN], False),
        ("Wann wurde die Mühle gebaut?", [ENGLISH], False),
        ("Mühle Orvel?", [GERMAN], False),
        ("When was the mill built?", [ENGLISH, ENGLISH, ENGLISH, GERMAN], True),
        ("Когда построили мельницу?", [GERMAN], False),
        ("", [], True),
        ("1788?", ["17, 18, 1788", "{}"], True),
        *((question, [text], False) for question, text in TEXTS.values()),
        *((question, [ENGLISH], False) for question, _ in TEXTS.values()),
        *(("When was the mill built?", [text], False) for _, text in TEXTS.values()),
    ],
)
def test_the_language_of_question_and_documents_decides(question: str, documents: list[str], english: bool) -> None:
    assert reads_as_english(question, documents) is english


def test_a_language_that_is_named_is_not_guessed() -> None:
    assert not reads_as_english("When was the mill built?", [ENGLISH], "ru")
    assert reads_as_english("When was the mill built?", [RUSSIAN], "en")
    assert reads_as_english("When was the mill built?", [GERMAN], "en-GB")
    assert not reads_as_english("Когда построили мельницу?", [RUSSIAN], "en")


def test_the_result_names_the_model_and_its_thresholds_hold(both: Provence, second: Path) -> None:
    contexts = [
        Context.of("When was the mill built?", [ENGLISH]),
        Context.of("Когда построили мельницу?", [RUSSIAN]),
        Context.of("Who built the mill?", [ENGLISH]),
    ]
    results = Pipeline([both]).run(contexts)
    assert [result.model for result in results] == ["provence-mini", second.name, "provence-mini"]
    assert [result.to_dict()["model"] for result in results] == [result.model for result in results]
    german = both.rules(results[1].after)
    assert german.operating_points is not None
    assert german.operating_points.threshold("balanced", 3) == 0.52
    assert german.policy.floor == 0.41
    assert both.rules(results[0].after).operating_points == load_model("provence-mini").operating_points
    assert [result.after for result in results[1:2]] == both.compress(contexts[1:2], threshold=0.52)


def test_a_floor_that_the_caller_names_holds_for_both(second: Path) -> None:
    compressor = load("provence", other_languages=str(second), policy=Policy(floor=0.2))
    assert isinstance(compressor, Provence)
    [scored] = compressor.score([Context.of("Когда построили мельницу?", [RUSSIAN])])
    assert compressor.rules(scored).policy.floor == 0.2


def test_contexts_get_the_same_alone_and_together(both: Provence) -> None:
    contexts = [Context.of(question, [text, ENGLISH]) for question, text in TEXTS.values()]
    contexts += [Context.of("When was the mill built?", [ENGLISH]), Context.of("Кто её построил?", [RUSSIAN])]
    assert both.score(contexts) == [both.score([context])[0] for context in contexts]


def test_english_never_loads_the_second_model_and_it_is_loaded_once(
    second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    monkeypatch.setattr(provence, "load_model", lambda source: (loaded.append(source), load_model(source))[1])
    provence._shared_model.cache_clear()
    compressors = [Provence(load_model("provence-mini"), other_languages=str(second)) for _ in range(2)]
    for compressor in compressors:
        compressor.compress([Context.of("When was the mill built?", [ENGLISH, "[1] 17 18"])])
    assert loaded == []
    german = [Context.of("Когда построили мельницу?", [RUSSIAN])]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: compressors[number % 2].compress(german), range(16)))
    assert loaded == [str(second)]
    assert shared_model(str(second)) is shared_model(str(second))


def test_a_named_model_reads_everything(second: Path) -> None:
    fixed = load("provence", model=str(second))
    [german, english] = Pipeline([fixed]).run(
        [Context.of("Когда её построили?", [RUSSIAN]), Context.of("When was the mill built?", [ENGLISH])]
    )
    assert (german.model, english.model) == ("", "")
    assert "model" not in german.to_dict()
    with pytest.raises(UnknownNameError, match="no model at 'provence-maxi'"):
        load("provence", model="provence-maxi")


def test_copies_and_pickles_go_on_choosing(both: Provence, second: Path) -> None:
    for made in (copy.copy(both), copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        [result] = Pipeline([made]).run([Context.of("Когда построили мельницу?", [RUSSIAN])])
        assert result.model == second.name


class CountingCache(MemoryCache):
    """added: entries that were put."""

    added = 0

    def put(self, entries):
        self.added += len(entries)
        super().put(entries)


def test_one_cache_keeps_the_readings_of_both_models(both: Provence, second: Path) -> None:
    cache = CountingCache()
    made = load("provence", other_languages=str(second), cache=cache)
    contexts = [Context.of("Кто построил мельницу?", [RUSSIAN]), Context.of("Who built the mill?", [ENGLISH, GERMAN])]
    fresh, after_first = made.score(contexts), cache.added
    assert (made.score(contexts), cache.added, after_first) == (fresh, after_first, 3)
    assert fresh == both.score(contexts)
    again = pickle.loads(pickle.dumps(load("provence", other_languages=str(second), cache="memory")))
    assert again.score(contexts) == fresh


def test_the_benchmark_chooses_as_the_compressor_does(both: Provence) -> None:
    from ctxprune.data.questions import LabelledDocument, Question

    for query, text in [("Когда построили мельницу?", RUSSIAN), ("When was the mill built?", ENGLISH)]:
        question = Question("q", query, (), False, (LabelledDocument(Document(text), False, (), None),))
        context = Context.of(query, [Document(text)], id="q")
        scored = unpack(json.loads(json.dumps(pack(both.score([context])[0]))), question)
        replay = Replay("provence", json.loads(json.dumps(_about(both))), default_counter(), scored)
        assert replay.compress([context]) == both.compress([context])


@pytest.mark.parametrize("code", TEXTS)
def test_kept_text_is_slices_of_the_source_in_every_script(both: Provence, code: str) -> None:
    question, text = TEXTS[code]
    text = f"  {text}\u3000\n\n{text}\u200b"
    [result] = Pipeline([both]).run([Context.of(question, [text])], threshold=0.3)
    [document] = result.to_dict()["documents"]
    spans = sorted((span["start"], span["end"]) for span in document["kept_spans"] + document["removed_spans"])
    covered = "".join(text[start:end] for start, end in spans)
    assert list(filter(str.isalnum, covered)) == list(filter(str.isalnum, text))
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_operating_points_are_read_from_the_model(both: Provence, second: Path) -> None:
    assert shared_model(str(second)).operating_points == OperatingPoints.from_dict(
        {"safe": 0.51, "balanced": 0.52, "aggressive": 0.53}
    )


def test_the_bundled_models_share_the_work() -> None:
    compressor = load("provence")
    contexts = [Context.of(question, [text]) for question, text in TEXTS.values()]
    results = Pipeline([compressor]).run([*contexts, Context.of("When was the mill built?", [ENGLISH])])
    assert [result.model for result in results] == [provence.MULTILINGUAL] * len(TEXTS) + [provence.BUNDLED]


@pytest.mark.parametrize("code", TEXTS)
def test_the_multilingual_model_reads_every_script_by_offsets(code: str) -> None:
    question, text = TEXTS[code]
    model = shared_model(provence.MULTILINGUAL)
    [reading] = model.read([Passage(question, "", f"\u3000{text}\n{text}")])
    starts, ends = reading.offsets.T
    assert (starts <= ends).all()
    assert (starts[1:] >= starts[:-1]).all()
    unknown = model.tokenizer.token_to_id("<unk>")
    assert unknown not in model.tokenizer.encode(text, add_special_tokens=False).ids
    covered = {place for start, end in reading.offsets for place in range(start, end)}
    whole = f"\u3000{text}\n{text}"
    assert {place for place, character in enumerate(whole) if character.isalnum()} <= covered


def test_the_german_letter_gives_its_sum_and_not_its_greetings() -> None:
    letter = (
        "Sehr geehrter Herr Brandt, wir danken für Ihre Anfrage. Der Kurs beginnt am 4. Mai um acht Uhr. "
        "Die Gebühr von 85 Euro überweisen Sie bitte vorab. Im Hof gibt es Plätze für Fahrräder. Mit besten Grüßen"
    )
    [scored] = load("provence", model=provence.MULTILINGUAL).score([Context.of("Wie hoch ist die Gebühr?", [letter])])  # type: ignore[attr-defined]
    [extract] = scored.extracts
    best = max(extract.units, key=lambda unit: unit.score)
    assert "85 Euro" in letter[best.start : best.end]
