"""Requests signed with a shared secret by HMAC-SM3 (GB/T 15852.2 with GB/T 32905): what is signed, and what makes a replay.

The text that is signed has nine lines, joined by ``\\n`` and without one at the end::

    FEDFAB-HMAC-SM3-1
    name of the client
    time, whole seconds since the epoch
    nonce, 16 to 64 characters out of A-Z a-z 0-9 _ -
    method
    path, and ?query where there is one, as in the request line
    Content-Encoding, or nothing
    Inference-Header-Content-Length, or nothing
    SM3 of the body as it is sent, 64 hexadecimal digits

Client, time, nonce and the signature (64 hexadecimal digits) travel in the headers below.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Mapping
from typing import NamedTuple

from gateway.inference.refusal import RefusalError
from trust.suite import suite

CLIENT, TIME, NONCE, SIGNATURE = "X-Fedfab-Client", "X-Fedfab-Time", "X-Fedfab-Nonce", "X-Fedfab-Signature"
SCHEME = "FEDFAB-HMAC-SM3-1"
REMEMBERED = 1_000_000
"""Nonces kept at most, some 60 MB; a gateway that is asked more than that within twice its `clock_skew_s` needs a smaller one."""
_CLIENT, _TIME = re.compile(r"[A-Za-z0-9_.@-]{1,64}"), re.compile(r"[0-9]{1,12}")
_NONCE, _SIGNATURE = re.compile(r"[A-Za-z0-9_-]{16,64}"), re.compile(r"[0-9a-fA-F]{64}")
_WHAT = ("Content-Encoding", "Inference-Header-Content-Length")


class Signed(NamedTuple):
    """The parts of a request that a signature covers."""

    method: str
    target: str
    """Path, and ?query where there is one."""
    headers: Mapping[str, str]
    body: bytes


class Claim(NamedTuple):
    """What the headers say, not proved yet."""

    client: str
    time: str
    nonce: str
    signature: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Claim | None:
        """The claim in these headers; None where there is none. Raises RefusalError FF-INFER-021 for half a one."""
        client = headers.get(CLIENT)
        if client is None:
            return None
        claim = cls(client, headers.get(TIME, ""), headers.get(NONCE, ""), headers.get(SIGNATURE, ""))
        forms = zip((_CLIENT, _TIME, _NONCE, _SIGNATURE), claim, strict=True)
        if not all(form.fullmatch(part) for form, part in forms):
            raise RefusalError(
                401,
                "FF-INFER-021",
                f"{TIME}, {NONCE} or {SIGNATURE} is missing or malformed",
                hint=f"{TIME}: whole seconds since the epoch; {NONCE}: 16 to 64 of A-Z a-z 0-9 _ -, never used before; "
                f"{SIGNATURE}: 64 hexadecimal digits",
            )
        return claim


def sign(client: str, secret: str, request: Signed) -> dict[str, str]:
    """The headers to add to a request. A client helper; `docs/inference.md` shows the same in a shell."""
    claim = Claim(client, str(int(time.time())), secrets.token_urlsafe(18), "")
    found = signature(secret, claim, request)
    return {CLIENT: claim.client, TIME: claim.time, NONCE: claim.nonce, SIGNATURE: found}


def signature(secret: str, claim: Claim, request: Signed) -> str:
    """What `Claim.signature` must be, 64 hexadecimal digits."""
    gm = suite("gm")
    what = [request.headers.get(name, "") for name in _WHAT]
    digest = gm.digest(request.body).hex()
    lines = [SCHEME, claim.client, claim.time, claim.nonce, request.method, request.target, *what, digest]
    return gm.hmac(secret.encode(), "\n".join(lines).encode(errors="surrogateescape")).hex()


def holds(secret: str, claim: Claim, request: Signed) -> bool:
    """Whether the signature is by who has the secret; takes as long for a wrong one as for a right one."""
    return hmac.compare_digest(signature(secret, claim, request), claim.signature.lower())


class Replays:
    """Lets each signed request in once, within ``skew_s`` of its time.

    Nonces are remembered by the second their request was signed in, as long as that second is acceptable. A request signed before the
    gateway started is refused: it may have been answered by the process before.
    """

    def __init__(self, skew_s: float) -> None:
        self.skew_s = skew_s
        self._started = int(time.time())
        self._seen: dict[int, set[tuple[str, str]]] = {}
        self._count = 0

    def check_time(self, claim: Claim) -> None:
        """Raises RefusalError FF-INFER-022 when its time is too far from ours."""
        now, stamp = time.time(), int(claim.time)
        off_s = stamp - now
        if abs(off_s) > self.skew_s or stamp < self._started:
            before = "" if abs(off_s) > self.skew_s else ", before this gateway started"
            raise RefusalError(
                401,
                "FF-INFER-022",
                f"the request was signed {abs(off_s):.0f} s {'after' if off_s > 0 else 'before'} this gateway's time{before}; "
                f"at most {self.skew_s:g} s are allowed",
                hint="set the clocks of both machines by one time server (timedatectl), and sign each request when it is sent",
            )

    def admit(self, claim: Claim) -> None:
        """Remember a request whose signature holds. Raises RefusalError FF-INFER-023 when it was here before."""
        stamp = int(claim.time)
        seen = self._seen.get(stamp)
        if seen is None:
            self._forget()
            seen = self._seen[stamp] = set()
        key = claim.client, claim.nonce
        if key in seen:
            raise RefusalError(
                401, "FF-INFER-023", "this signed request was answered before", hint="a new nonce for every request"
            )
        if self._count >= REMEMBERED:
            raise RefusalError(
                429,
                "FF-INFER-024",
                f"{REMEMBERED} signed requests came within the last {2 * self.skew_s:g} s, more than can be told from replays",
                hint="send more windows in one request, or make [inference] clock_skew_s smaller",
            )
        seen.add(key)
        self._count += 1

    def _forget(self) -> None:
        """Drop the seconds that are not acceptable any more."""
        oldest = time.time() - self.skew_s - 1
        for stamp in [stamp for stamp in self._seen if stamp < oldest]:
            self._count -= len(self._seen.pop(stamp))
