"""Everything here that reads bytes from others, each with examples that it takes: what a fuzzer begins with.

A decoder either returns or raises one of our own errors; of a body that pydantic reads also its ValidationError.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgpack
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemind.dht.routing import DHTID
from hivemind.utils import MSGPackSerializer
from pydantic import ValidationError

from benchmarks.families import FAMILIES, SIZES
from configs.content import chunk_hashes, content_id_of, split_hashes
from configs.corpus import CorpusInfo, DomainInfo, ShardInfo
from configs.errors import PeerError, ShoalError
from configs.load import load
from configs.run import ModelSpec, RunSpec
from dht.addresses import addresses_of, parse_address
from dht.admission import Admission, unvouched
from dht.identity import Identity
from dht.invitations import (
    Revocations,
    granted,
    invite,
    packed_chain,
    packed_revocations,
    parse_invitation,
    public_half,
    read_chain,
    read_revocations,
    revoke,
    spelled,
)
from dht.records import DomainRecord, ExclusionRecord, GroupRecord, MemberRecord, open_record, sign_record
from dht.relays import read_terms
from dht.validator import check
from peer.answers.chat import ChatRequest
from peer.answers.completions import CompletionRequest
from peer.corpus.tokenizer import open_tokenizer, train_tokenizer
from peer.http.server import _host_name
from peer.train import family
from peer.train.outer import SWARM, new_state, read_state
from peer.train.partition import COMMON
from protocols import answer, codecs, describe, offers, parcels, reach, shards, state
from protocols.wire import Message

RUN, BLOCK, DIGEST = "0" * 32, COMMON, "0" * 64
PEER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
TICK_S, NOW = 30.0, 1_000_000.0
VALUES = 64  # of a decoded tensor
RELAY = bytes.fromhex("0802220908880e1080808080102864")  # a relay's terms, as p2pd writes them
REFUSALS = (ShoalError, ValidationError)


@dataclass(frozen=True)
class Decoder:
    """What reads bytes, and some that it takes. `form` says in which parts they may be changed one by one."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    form: str = ""  # msgpack, json, or nothing
    share: float = 1.0  # of the inputs that a quick one gets: some build more than they read
    raises: tuple[type[BaseException], ...] = REFUSALS


def messages() -> Mapping[type[Message], Message]:
    """Return one of each kind of message between peers."""
    mark = state.BlockState(block=BLOCK, version=3, round=7, age=900, content_id=DIGEST, size_bytes=10, is_final=False)
    sealed = offers.SealedRound(version=3, round=7, offers={PEER: DIGEST}, digest=DIGEST)
    header = parcels.OfferHeader(
        run_id=RUN, block=BLOCK, round=7, peer=PEER, codec="int4", size_bytes=40, content_id=DIGEST, tokens=900,
        norm=1.5, domain="fish", fragment=1, fresh_tokens=8, age=800,
    )  # fmt: skip
    description = describe.RunDescription(
        spec=spec().model_dump_json().encode(), tokenizer_id=DIGEST, tokenizer_bytes=10, domains=[b"x"],
        members={PEER: [f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"]}, version="1", now=NOW,
    )  # fmt: skip
    found: tuple[Message, ...] = (
        answer.AnswerRequest(sub_model=BLOCK, prompt=[1, 2], max_tokens=5, temperature=0.5, top_k=5, seed=1),
        answer.AnswerPart(text="fish", end="stop"),
        offers.OfferRequest(block=BLOCK, round=7, peer=PEER, wait_s=1.0, held=b"\x01", start=0.5),
        offers.ListRequest(block=BLOCK, round=7, wait_s=1.0),
        offers.OfferList(offers={PEER: DIGEST}, marks=[(3, DIGEST)], state_bytes=10),
        offers.HistoryRequest(block=BLOCK, after_version=2),
        sealed,
        offers.History(rounds=[sealed]),
        header,
        parcels.SignedOffer(header=header.SerializeToString(), public_key=b"k", signature=b"s"),
        mark,
        state.BlocksRequest(),
        state.BlockStates(blocks=[mark]),
        state.KeepRequest(state=mark),
        state.Ack(is_stored=False, reason="full"),
        reach.ReachRequest(port=4001),
        reach.ReachAnswer(outcome="open", family="ip4", host="192.0.2.1", port=4001),
        describe.DescribeRequest(knows_hints=True),
        description,
        shards.ManifestRequest(content_id=DIGEST),
        shards.ChunkRequest(content_id=DIGEST, first=0, count=2),
    )
    return {type(each): each for each in found}


@lru_cache(maxsize=1)
def spec() -> RunSpec:
    """Return a run description."""
    plan = load("tiny").run
    assert plan is not None
    return plan.founded(30.0, genesis=0.0, tokenizer_sha256=DIGEST, end_of_text=0)


@lru_cache(maxsize=1)
def _identity() -> Identity:
    with tempfile.TemporaryDirectory() as folder:
        return Identity.load_or_create(Path(folder) / "identity.key")


def decoders() -> dict[str, Decoder]:
    """Return every decoder by its name."""
    found = {
        f"message.{kind.__name__}": Decoder(kind.FromString, (one.SerializeToString(),), "msgpack")
        for kind, one in messages().items()
    }
    return found | _of_records() | _of_invitations() | _of_tensors() | _of_texts()


def _of_records() -> dict[str, Decoder]:
    identity = _identity()
    shard = ShardInfo(content_id=DIGEST, tokens=10, size_bytes=20)
    domain = DomainInfo(name="fish", shards=(shard,), heldout=shard, counts=shard, is_public=True)
    records: dict[str, Any] = {
        "member": MemberRecord(run_id=RUN, holdings={BLOCK: (3, 9)}, keeps={BLOCK: 2}, ages={BLOCK: 900}),
        "group": GroupRecord(run_id=RUN, block=BLOCK, tick=3, prefix="01", holders=5.0),
        "domain": DomainRecord(run_id=RUN, index=0, domain=domain),
        "exclusion": ExclusionRecord(run_id=RUN, proofs=[("00ff", "01")]),
    }
    found: dict[str, Decoder] = {}
    for kind, record in records.items():
        signed = sign_record(identity, kind, record, NOW)  # type: ignore[arg-type]
        read = partial(open_record, kind=kind, model=type(record))  # type: ignore[arg-type]
        found[f"record.{kind}"] = Decoder(read, (signed,), "msgpack")
        if kind != "domain":
            key = DHTID.generate(source=record.key).to_bytes()
            entry = partial(_entry, key, MSGPackSerializer.dumps(identity.peer_id))
            found[f"dht.{kind}"] = Decoder(entry, (MSGPackSerializer.dumps(signed),), "msgpack")
    # Hivemind hears of what its serializer raises, whatever it is: only a crash would be one.
    dictionary = MSGPackSerializer.dumps(("peer", b"record", 3))
    found["dht.serializer"] = Decoder(MSGPackSerializer.loads, (dictionary,), raises=(Exception,))
    about = (BLOCK, 7, identity.peer_id)
    hashes = b"".join(chunk_hashes(bytes(40)))
    open_parcel = partial(parcels.open_parcel, hashes=hashes, run_id=RUN, about=about, max_bytes=1 << 20)
    own = _own_offer(identity)
    return found | {
        "offer": Decoder(open_parcel, (own,), "msgpack"),
        "proof": Decoder(lambda data: _refused(parcels.convicted, data, own, RUN), (own,), "msgpack"),
    }


def _refused(read: Callable[..., object], *given: object) -> None:
    """Read what is no proof whatever it is: an offer beside itself, changed, of which the signature does not hold."""
    with suppress(PeerError):
        raise AssertionError(read(*given))


def _own_offer(identity: Identity) -> bytes:
    payload = bytes(40)
    known = messages()[parcels.OfferHeader].model_dump()
    header = parcels.OfferHeader(**known | {"peer": identity.peer_id, "content_id": content_id_of(payload)})
    return parcels.sign_offer(identity, header, payload, chunk_hashes(payload)).envelope


def _entry(key: bytes, subkey: bytes, value: bytes) -> object:
    return check(key, subkey, value, NOW + 60.0, RUN, TICK_S)


def _of_invitations() -> dict[str, Decoder]:
    """What opens the door of a closed run."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    door, rights = public_half(key), ("read", "train")
    chain = invite(key, door, PEER, rights, NOW, NOW + 60.0)
    admission = Admission(door, chain, now=lambda: NOW)
    out = revoke(key, Revocations(admission=door), {PEER: NOW + 10.0})
    return {
        "invitation": Decoder(lambda data: granted(read_chain(data), door), (packed_chain(chain),), "msgpack"),
        "invitation, pasted": Decoder(
            lambda data: parse_invitation(data.decode(errors="replace")), (spelled(chain).encode(),)
        ),
        "revocations": Decoder(lambda data: read_revocations(data, door), (packed_revocations(out),), "msgpack"),
        "presentation": Decoder(lambda data: admission.meet(PEER, data), (admission.presentation(),), "msgpack"),
        "record of a closed run": Decoder(lambda data: unvouched(data, door), (admission.vouch(b"x"),), "msgpack"),
    }


def _of_tensors() -> dict[str, Decoder]:
    values = torch.linspace(-1, 1, VALUES)
    begun = new_state(BLOCK, values, values, version=1, round_=2, ages={SWARM: 5, PEER: 7}, is_final=False)
    found = {
        f"codec.{codec}": Decoder(
            lambda data, codec=codec: codecs.decode(codec, data, VALUES), (bytes(codecs.encode(codec, values)),)
        )
        for codec in codecs.CODECS
    }
    return found | {
        "state": Decoder(lambda data: read_state(data, BLOCK, VALUES), (bytes(begun.blob),)),
        "hashes": Decoder(split_hashes, (bytes(64),)),
    }


def _of_texts() -> dict[str, Decoder]:
    tokenizer = train_tokenizer(iter(["a shoal of fish swims together " * 20]), 300).json
    turns = [{"role": "user", "content": "fish"}]
    asked = {"prompt": ["fish"], "max_tokens": 5, "stop": ["."], "n": 2, "logit_bias": {"5": 1.0}, "stream": True}
    configs = [json.dumps({**SIZES, **FAMILIES[kind], "model_type": kind}).encode() for kind in ("qwen3", "gpt2")]
    address = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"
    shard = {"content_id": DIGEST, "tokens": 10, "size_bytes": 20}
    domain = {"name": "fish", "shards": [shard], "heldout": shard, "counts": shard, "is_public": True}
    info = {"tokenizer_sha256": DIGEST, "vocab_size": 300, "end_of_text": 0, "domains": [domain]}
    return {
        "tokenizer": Decoder(_tokenizer, (tokenizer,), "json", 0.05),
        "run spec": Decoder(RunSpec.model_validate_json, (spec().model_dump_json().encode(),), "json"),
        "run spec, described": Decoder(describe._checked_spec, (spec().model_dump_json().encode(),), "json"),
        "corpus": Decoder(CorpusInfo.model_validate_json, (json.dumps(info).encode(),), "json"),
        "model configuration": Decoder(_model_config, tuple(configs), "json", 0.02),
        "completions": Decoder(CompletionRequest.parse, (json.dumps(asked).encode(),), "json"),
        "chat": Decoder(ChatRequest.parse, (json.dumps({"messages": turns, "temperature": 0.5}).encode(),), "json"),
        "address": Decoder(lambda data: parse_address(data.decode(errors="replace")), (address.encode(),)),
        "addresses": Decoder(lambda data: addresses_of(PEER, [data.decode(errors="replace")]), (address.encode(),)),
        "relay": Decoder(read_terms, (RELAY,)),
        "host": Decoder(lambda data: _host_name(data.decode("latin-1")), (b"localhost:80", b"[::1]:80")),
    }


def _tokenizer(data: bytes) -> object:
    return open_tokenizer(data).encode("a shoal").ids


def _model_config(data: bytes) -> object:
    """Read a model's configuration as it comes in a run description: checked by that, then built without memory."""
    model = ModelSpec.model_validate({**spec().model.model_dump(), "config": data.decode(errors="replace")})
    return family.shapes(str(model.config))


def changed(data: bytes, form: str, place: int, value: object) -> bytes:
    """Return `data` with one of its parts replaced by `value`, others for other numbers; as it is if it has none."""
    try:
        tree = json.loads(data) if form == "json" else msgpack.unpackb(data) if form == "msgpack" else None
    except Exception:  # it was changed before, beyond reading
        return data
    places = list(_places(tree))
    if not places:
        return data
    parent, key = places[place % len(places)]
    parent[key] = value
    try:
        return json.dumps(tree).encode() if form == "json" else bytes(msgpack.packb(tree))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return data


def _places(tree: Any) -> Any:
    """Yield every part of a tree of lists and dictionaries, as what it lies in and its key there."""
    keys = range(len(tree)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**48, 2**63 - 1, 2**64 - 1, 1e308, -0.0, "", "x" * 70_000, "\x00", "../../x", b"",
    bytes(70_000), [], {}, [[]] * 300, {"a": {"b": {"c": {}}}}, [0] * 5000, {str(n): n for n in range(300)},
)  # fmt: skip
