"""Trains a SentencePiece model like the one that ships: the missions of all BabyAI levels, and two licence texts.

    python -m studies.text_model --out my_text.model [--pieces 512] [--seeds 40]

Missions are short and alike, so they are said twice; the licences (Apache's, which is Clowder's, and NumPy's) give
common English words. Byte fallback lets any text be read. The result may differ from the shipped file where libraries
do; a model is chosen by ``agent.text_model``, and checkpoints carry the one that they were trained with.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from actors.config import ActorConfig
from actors.environments.babyai import task_names
from actors.environments.make import make_environment

MISSIONS_REPEATED = 2


def missions(seeds: int) -> Iterator[str]:
    """The mission of every BabyAI level for each of so many seeds."""
    for name in task_names():
        environment = make_environment(ActorConfig(task=name), 1)
        for seed in range(seeds):
            yield str(environment.reset([0], [seed])["mission"][0])
        environment.close()


def licences() -> Iterator[str]:
    """Lines of the licences of Clowder and NumPy."""
    for package in ("clowder", "numpy"):
        for path in importlib.metadata.files(package) or ():
            if path.name.startswith("LICENSE"):
                yield from (line.strip() for line in Path(str(path.locate())).read_text().splitlines() if line.strip())


def main() -> None:
    """Train and write the model."""
    parser = argparse.ArgumentParser(description="Train a SentencePiece model on missions and licences")
    parser.add_argument("--out", type=Path, required=True, help="file of the model")
    parser.add_argument("--pieces", type=int, default=512, help="size of the vocabulary")
    parser.add_argument("--seeds", type=int, default=40, help="missions of each level")
    options = parser.parse_args()
    said = sorted(set(missions(options.seeds)))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(said * MISSIONS_REPEATED + list(licences())),
        model_writer=model,
        vocab_size=options.pieces,
        model_type="unigram",
        byte_fallback=True,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    options.out.write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    print(f"{options.out}: {pieces} pieces from {len(said):,} missions and two licences")


if __name__ == "__main__":
    main()
