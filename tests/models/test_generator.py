"""Small models that were taught to answer with a prompt's first and last word: the answer shows what was read."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertModel

from bizllm.errors import UserError
from bizllm.models import refill
from bizllm.models.generator import Generator, TooLong
from bizllm.models.saved import ModelInfo, write_info

WORDS = ["lid", "box", "cat", "tea", "mill", "lamp", "desk", "rain"]
Folders = Callable[[str], Path]

both = pytest.mark.parametrize("kind", ["causal", "seq2seq"])


def prompts(n: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join([*rng.choices(WORDS, k=rng.randint(2, 12)), "so"]) for _ in range(n)]


def right(prompt: str) -> str:
    words = prompt.split()
    return f"{words[0]} {words[-2]}"


@pytest.fixture
def load(small_generator: Folders) -> Callable[[str], Generator]:
    return lambda kind: Generator.load(small_generator(kind), "cpu", "float32")


def _with_room_for(generator: Generator, tokens: int) -> Generator:
    """The same one with smaller batches."""
    few = object.__new__(Generator)
    few.__dict__.update(generator.__dict__, _batch_tokens=tokens)
    return few


@both
def test_answers_are_those_of_the_prompts_in_their_order(load: Any, kind: str) -> None:
    asked = prompts(120)
    made = load(kind).generate(asked, 8)
    assert sum(text == right(prompt) for text, prompt in zip(made.texts, asked, strict=True)) >= 118
    assert made.finished.all()
    assert made.input_tokens.tolist() == [len(prompt.split()) for prompt in asked]  # a token a word
    assert Counter(made.output_tokens.tolist()).most_common(1)[0][0] == 3  # two words and the end mark


@both
def test_padding_and_batches_change_nothing(load: Any, small_generator: Folders, kind: str) -> None:
    """Beside transformers' own loop, one prompt at a time and unpadded; and beside other batches."""
    asked, generator = prompts(40), load(kind)
    made = generator.generate(asked, 8)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM
    model, tokenizer = auto.from_pretrained(small_generator(kind)), AutoTokenizer.from_pretrained(small_generator(kind))
    for prompt, text in zip(asked, made.texts, strict=True):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[0]
        assert text == tokenizer.decode(out[len(ids[0]) :] if kind == "causal" else out, skip_special_tokens=True)
    one = [generator.generate([prompt], 8).texts[0] for prompt in asked]
    turned = _with_room_for(generator, 40).generate(asked[::-1], 8)
    assert one == made.texts == turned.texts[::-1]
    assert turned.output_tokens.tolist() == made.output_tokens.tolist()[::-1]


def test_what_all_prompts_begin_with_is_read_once(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And changes no answer; a batch whose prompts begin otherwise, or too shortly alike, is read as ever."""
    generator = load("causal")
    begin = ["mill", "box", "cat", "tea", "lid", "lamp", "desk", "rain"]
    asked = [" ".join([*begin, *tail, "so"]) for tail in (["tea"], ["cat", "lid"], ["box"], ["desk", "rain", "lamp"])]
    asked += [" ".join([*begin, "so"])]  # nothing but what is shared
    read: list[int] = []
    plain = refill.Refilled._read_once
    monkeypatch.setattr(
        refill.Refilled, "_read_once", lambda self, prefix: (read.append(len(prefix)), plain(self, prefix))[1]
    )
    made = generator.generate(asked, 8)
    assert read == [8] and made.texts == [right(prompt) for prompt in asked]
    assert made.texts == [generator.generate([prompt], 8).texts[0] for prompt in asked]
    assert read == [8], "one prompt shares with nobody"
    few = _with_room_for(generator, 40)
    assert few.generate(asked, 8).texts == made.texts and read == [8, 8], "once, however many batches"
    drawn = [generator.generate(asked, 4, temperature=2.0, seed=seed) for seed in range(20)]
    monkeypatch.setattr(refill, "LEAST_SHARED", 100)
    for seed, sample in enumerate(drawn):
        assert generator.generate(asked, 4, temperature=2.0, seed=seed).texts == sample.texts
    monkeypatch.undo()
    made = generator.generate(prompts(5), 8)
    assert made.texts == [generator.generate([prompt], 8).texts[0] for prompt in prompts(5)], "they begin otherwise"


@pytest.mark.parametrize("method", ["PromptTuningConfig", "PrefixTuningConfig"])
@both
def test_virtual_tokens_stand_before_every_prompt(
    small_generator: Folders, tmp_path: Path, kind: str, method: str
) -> None:
    """Beside a loop over PEFT's own forward, one prompt at a time, without a cache."""
    folder = Path(shutil.copytree(small_generator(kind), tmp_path / "model"))
    plain = Generator.load(folder, "cpu", "float32")
    task = "CAUSAL_LM" if kind == "causal" else "SEQ_2_SEQ_LM"
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSeq2SeqLM
    torch.manual_seed(0)
    model = peft.get_peft_model(
        auto.from_pretrained(folder), getattr(peft, method)(task_type=task, num_virtual_tokens=3)
    ).eval()
    model.save_pretrained(folder / "adapter")
    generator = Generator.load(folder, "cpu", "float32")
    assert generator.max_tokens == plain.max_tokens - 3
    asked, expected = prompts(12), []
    for prompt in asked:
        ids, written = generator.tokenizer(prompt, return_tensors="pt")["input_ids"], []
        start = [] if kind == "causal" else [model.config.decoder_start_token_id]
        while len(written) < 6 and generator.ends[0] not in written:
            if kind == "causal":
                logits = model(input_ids=torch.cat([ids, torch.tensor([written], dtype=torch.long)], 1)).logits
            else:
                logits = model(input_ids=ids, decoder_input_ids=torch.tensor([start + written])).logits
            written.append(int(logits[0, -1].argmax()))
        expected.append(generator.tokenizer.decode(written, skip_special_tokens=True).strip())
    assert generator.generate(asked, 6).texts == expected
    assert expected != plain.generate(asked, 6).texts


@both
def test_equal_prompts_are_answered_once(load: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    generator, read = load(kind), []
    encode = Generator._encode

    def counted(self: Generator, prompts: list[str], chat: bool) -> list[list[int]]:
        read.append(len(prompts))
        return encode(self, prompts, chat)

    monkeypatch.setattr(Generator, "_encode", counted)
    made = generator.generate(["cat tea so", "box so", "cat tea so", "cat tea so"], 8)
    assert read == [2]
    assert made.texts == ["cat tea", made.texts[1], "cat tea", "cat tea"]
    assert made.input_tokens.tolist() == [3, 2, 3, 3]


@both
def test_an_answer_that_reached_its_limit_says_so(load: Any, kind: str) -> None:
    made = load(kind).generate(["cat mill tea so", "box lid so"], 1)
    assert made.texts == ["cat", "box"]
    assert made.output_tokens.tolist() == [1, 1] and not made.finished.any()


@both
def test_a_prompt_longer_than_the_window_is_refused_never_cut(load: Any, kind: str) -> None:
    generator = load(kind)
    limit = generator.max_input_tokens(8)
    assert limit == (32 if kind == "causal" else 40)
    fits, long = " ".join(["cat"] * limit), " ".join(["cat"] * (limit + 1))
    assert generator.count([fits, long]).tolist() == [limit, limit + 1]
    generator.generate([fits], 8)
    with pytest.raises(TooLong, match=str(limit)) as error:
        generator.generate(["cat so", long, fits, long], 8)
    assert error.value.positions == (1, 3) and "cat" not in str(error.value)
    with pytest.raises(UserError, match="40 tokens"):
        generator.generate(["cat so"], 41)


def test_no_prompt_no_answer(load: Any) -> None:
    made = load("causal").generate([], 8)
    assert made.texts == [] and made.input_tokens.shape == made.finished.shape == (0,)
    assert load("causal").generate([""], 3).input_tokens.tolist() == [1]  # a start mark stands for it


def test_samples_have_the_models_distribution_and_depend_on_seed_and_prompt_only(load: Any) -> None:
    generator: Generator = load("causal")
    ids = torch.tensor([generator.tokenizer("box")["input_ids"]])  # not taught: many words may follow
    with torch.no_grad():
        expected = torch.softmax(generator.model(ids).logits[0, -1].double() / 3.0, 0).numpy()
    drawn = [generator.generate(["box"], 1, temperature=3.0, seed=seed).texts[0] for seed in range(600)]
    for word in WORDS:
        likely = expected[generator.tokenizer(word)["input_ids"][0]]
        assert drawn.count(word) / len(drawn) == pytest.approx(likely, abs=4 * np.sqrt(likely / len(drawn)))
    asked = prompts(30)
    whole = generator.generate(asked, 8, temperature=3.0, seed=5).texts
    assert [generator.generate([prompt], 8, temperature=3.0, seed=5).texts[0] for prompt in asked] == whole
    assert generator.generate(asked, 8, temperature=3.0, seed=6).texts != whole


def test_a_chat_template_wraps_the_prompt_and_its_marks_are_text_in_it(load: Any) -> None:
    generator: Generator = load("causal")
    generator.tokenizer.chat_template = "<user>{{ messages[0]['content'] }}{% if add_generation_prompt %} so{% endif %}"
    user = generator.tokenizer.convert_tokens_to_ids("<user>")
    (wrapped,) = generator._encode(["cat tea"], True)
    assert wrapped[0] == user and len(wrapped) == 4
    assert generator.count(["cat tea"]).tolist() == [4] and generator.count(["cat tea"], chat=False).tolist() == [2]
    for chat in (True, False):
        (marked,) = generator._encode(["cat <user> <end> tea"], chat)
        assert marked.count(user) == chat and generator.ends[0] not in marked


def test_a_prompt_goes_on_where_the_tokenizer_closes_texts(load: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    generator: Generator = load("causal")
    end = generator.ends[0]
    generator.tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", end)]
    )
    assert generator.tokenizer("cat tea so")["input_ids"][-1] == end
    assert generator.generate(["cat tea so"], 8).texts == ["cat tea"]


def test_of_the_folders_generation_settings_only_token_ids_count(small_generator: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_generator("causal"), folder)
    config = json.loads((folder / "generation_config.json").read_text())
    config |= {"do_sample": True, "temperature": 9.0, "num_beams": 3, "repetition_penalty": 50.0, "min_new_tokens": 8}
    (folder / "generation_config.json").write_text(json.dumps(config))
    asked = prompts(20)
    plain = Generator.load(small_generator("causal"), "cpu", "float32").generate(asked, 8)
    assert Generator.load(folder, "cpu", "float32").generate(asked, 8).texts == plain.texts


def test_the_window_of_the_fine_tuning_holds(small_generator: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_generator("seq2seq"), folder)
    write_info(folder, ModelInfo("short", "seq2seq", max_tokens=24))
    assert Generator.load(folder, "cpu", "float32").max_input_tokens(8) == 24


def test_an_encoder_is_no_generator(tmp_path: Path, small_generator: Folders) -> None:
    """transformers would load it as a decoder, with an untrained head."""
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(**size)).save_pretrained(tmp_path)
    for file in small_generator("causal").glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(UserError, match="'bert': expected a model that writes text"):
        Generator.load(tmp_path, "cpu", "float32")
