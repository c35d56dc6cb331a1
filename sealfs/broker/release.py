"""The decision: whether an environment may have a dataset's keys; and the order in which it takes effect.

`decide` is a pure function of everything that a decision goes by, so that more rules have one place to stand.
Around it: evidence is verified, the decision and its reasons are logged, the log is on disk, and only then is the
key opened and encrypted to the environment's own key.

Threading: safe; transactions are the database's.
"""

from __future__ import annotations

import hmac
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sealfs.attestation.canonical import canonical, digest
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.sample import TEE as SAMPLE
from sealfs.attestation.verdict import RegisteredManifest, Verdict, judge
from sealfs.attestation.verify import Verifier
from sealfs.broker import agreements, holdings, jose, members
from sealfs.broker.agreements import Agreement
from sealfs.broker.audit import Log
from sealfs.broker.database import Database
from sealfs.broker.holdings import Holding, Publication
from sealfs.broker.protocol import Attestation, Challenge, Problem, Request, Resource, bound_data
from sealfs.broker.sessions import LIFETIME, Challenges, Session, Sessions, session_name, spend
from sealfs.broker.wrapping import Vault
from sealfs.contracts.contract import Contract
from sealfs.errors import DocumentError, EvidenceError, SealfsError

_MAX_REASON = 4096
_BOUND = re.compile("[0-9a-f]{64}|[0-9a-f]{96}")


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that a decision goes by.

    Attributes:
        resource: What was asked for.
        session: Who asked.
        holding: What the broker holds of it; None if nothing.
        publication: The version that was asked for, as it was published; None if it never was.
        manifest: What the owner registered for the environment's measurement; None if nothing.
        agreement: The contract that the evidence is bound to; None if to none that this broker knows.
        at: The time, with a zone.
    """

    resource: Resource
    session: Session
    holding: Holding | None
    publication: Publication | None
    manifest: RegisteredManifest | None
    agreement: Agreement | None
    at: datetime

    @property
    def by_contract(self) -> bool:
        """Whether a contract decides: the owner demands one, or the evidence is bound to one.

        What carries out contracts does whatever the one says that it was handed: its measurement proves nothing of
        what becomes of the data. So one that is not known here lets no key go, whatever the owner demands.
        """
        return self.session.bound is not None or (self.holding is not None and self.holding.policy.contract)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided.

    Attributes:
        problem: Why not; None if the keys are released.
        verdict: On the evidence; None if it did not come to that.
    """

    problem: Problem | None
    verdict: Verdict | None = None

    @property
    def reason(self) -> str:
        """One line."""
        if self.problem is not None:
            return self.problem.detail
        return self.verdict.reason if self.verdict else ""


def decide(asked: Asked) -> Decision:
    """Decide whether keys are released: the dataset is held, the evidence will do, the version is the right one.

    By contract the right version is the one agreed on, and everything else that the contract demands has to hold;
    else it is the newest.
    """
    holding = asked.holding
    if holding is None:
        return Decision(
            Problem("PluginNotFound", 404, f"this broker has no {asked.resource}", "is it another owner's broker?")
        )
    policies, manifest = [holding.policy], asked.manifest
    if asked.agreement is not None:
        contract = asked.agreement.task.contract
        policies.append(contract.policy)
        manifest = _as_agreed(manifest, contract)
    verdict = judge(policies, asked.session.claims, manifest, asked.at)
    if not verdict.allowed:
        hint = "'sealfs policy check' explains a verdict line by line"
        return Decision(Problem("PolicyDeny", 403, verdict.reason, hint), verdict)
    if holding.keys is None:
        return Decision(Problem("PolicyDeny", 403, "the owner has withdrawn this dataset"), verdict)
    if asked.by_contract:
        if asked.session.bound is None:
            detail = "this dataset is released for agreed contracts only, and the evidence is bound to none"
            return Decision(Problem("PolicyDeny", 403, detail, "run it by contract: sealfs task run"), verdict)
        problem = agreements.problem_with(asked.agreement, asked.resource, asked.publication, asked.at)
        return Decision(problem, verdict)
    newest = holding.newest.version
    if asked.publication is None:
        detail = f"the owner has published no version {asked.resource.version}, the newest is {newest}"
        hint = "if the store has a newer one its push is not complete: ask the owner to run it again"
        return Decision(Problem("PolicyDeny", 403, detail, hint), verdict)
    if asked.publication.version != newest:
        detail = f"version {asked.publication.version} is out of date, the owner has published {newest}"
        return Decision(Problem("PolicyDeny", 403, detail, "use the newest version"), verdict)
    return Decision(None, verdict)


def _as_agreed(manifest: RegisteredManifest | None, contract: Contract) -> RegisteredManifest | None:
    """Return what an enclave's manifest may serve in a run by a contract, which says what becomes of its output."""
    if manifest is None or contract.stdout != "host":
        return manifest
    reason = "by the contract what the script prints, the host reads"
    return replace(manifest, level=min(manifest.level, Level.L4), findings=(*manifest.findings, reason))


class RefusedError(SealfsError):
    """A request that was not granted.

    Args:
        problem: Why.
        logged: Whether it is in the log, for good.
    """

    def __init__(self, problem: Problem, *, logged: bool = False) -> None:
        super().__init__(problem.detail, problem.hint)
        self.problem = problem
        self.logged = logged


class Releases:
    """The protocol's four steps, without HTTP.

    Args:
        identity: The broker's, as evidence must name it.
        database: Where all is kept.
        vault: Opens the keys.
        log: Where every decision goes.
        tokens: Makes attestation tokens.
        challenges: Makes challenges.
        verifier: Returns what verifies evidence at the moment.
        clock: Returns the time, with a zone.
        accept_unbound: Whether evidence that names no broker will do: the confidential containers' own clients
            name none.
    """

    def __init__(
        self,
        identity: str,
        database: Database,
        vault: Vault,
        log: Log,
        tokens: jose.TokenIssuer,
        challenges: Challenges,
        verifier: Callable[[], Verifier],
        clock: Callable[[], datetime],
        *,
        accept_unbound: bool = False,
    ) -> None:
        self._identity = identity
        self._database = database
        self._vault = vault
        self._log = log
        self._tokens = tokens
        self._challenges = challenges
        self._verifier = verifier
        self._clock = clock
        self._accept_unbound = accept_unbound
        self.sessions = Sessions()

    def challenge(self, request: Request) -> tuple[str, Challenge]:
        """Return the cookie and the challenge for a request."""
        cookie, nonce = self._challenges.issue(request.tee, request.version, self._now())
        return cookie, Challenge(nonce)

    def attest(self, cookie: str, attestation: Attestation) -> str:
        """Verify evidence, open a session, and return its token.

        Raises:
            RefusedError: The evidence does not verify, or its challenge has been answered before.
            DocumentError: The key is none.
        """
        at = self._clock()
        now = int(at.timestamp())
        jose.check_public_key(attestation.runtime.tee_pubkey)
        challenged = self._challenges.check(cookie, attestation.runtime.nonce, now)
        if challenged is None:
            raise RefusedError(
                Problem("AttestationError", 401, "this challenge was not issued here, or is too old", "start again")
            )
        outcome: Session | RefusedError
        try:
            outcome = self._verified(challenged.name, challenged.version, challenged.tee, attestation, at)
        except EvidenceError as error:
            outcome = RefusedError(Problem("AttestationError", 401, error.message, error.hint))

        def answer(transaction: sqlite3.Connection) -> Session | RefusedError:
            result = outcome
            if not spend(transaction, challenged, now):
                detail = "this challenge has been answered before: evidence serves once"
                result = RefusedError(Problem("AttestationError", 401, detail, "start again with a new challenge"))
            record = {"session": challenged.name, "tee": challenged.tee}
            if isinstance(result, Session):
                event, more = "attested", _described(result)
            else:
                event, more = "evidence refused", {"reason": result.problem.detail[:_MAX_REASON]}
            if isinstance(result, RefusedError) or result.claims is not None:  # nothing proven is no news
                self._log.append(transaction, at, event, {**record, **more})
            return result

        result = self._database.write(answer)
        if isinstance(result, RefusedError):
            raise RefusedError(result.problem, logged=True)
        self.sessions.add(result)
        return self._tokens.issue(result.name, result.tee_pubkey, now, result.expires)

    def session(self, cookie: str | None, token: str | None) -> Session | None:
        """Return the session that a cookie stands for; or else, as in a Trustee KBS, the token's."""
        now = self._now()
        names = [session_name(cookie) if cookie else None, self._tokens.session_of(token, now) if token else None]
        found = (self.sessions.get(name, now) for name in names if name is not None)
        return next((session for session in found if session is not None), None)

    def release(self, session: Session, resource: Resource) -> dict[str, str]:
        """Decide; log; and if it is allowed return the keys, encrypted to the session's key.

        Raises:
            RefusedError: It is not allowed, and the log says so, too.
        """
        at = self._clock()

        def settle(transaction: sqlite3.Connection) -> tuple[Asked, Decision]:
            asked = self._asked(transaction, session, resource, at)
            decision = decide(asked)
            if decision.problem is None and asked.agreement is not None and session.bound is not None:
                agreements.take_run(transaction, session.bound, resource, _run_of(session))
            event = "released" if decision.problem is None else "refused"
            self._log.append(transaction, at, event, _record(asked, decision))
            return asked, decision

        asked, decision = self._database.write(settle)  # returns when it is on disk
        if decision.problem is not None:
            raise RefusedError(decision.problem, logged=True)
        assert asked.holding  # noqa: S101 - what `decide` has checked
        assert asked.publication  # noqa: S101
        assert decision.verdict  # noqa: S101
        return self._encrypted(asked.session, asked.holding, asked.publication, decision.verdict)

    def _encrypted(
        self, session: Session, holding: Holding, publication: Publication, verdict: Verdict
    ) -> dict[str, str]:
        assert holding.keys is not None  # noqa: S101 - what `decide` has checked
        keys = self._vault.open(holding.keys, holding.context)
        document = {
            "owner": holding.owner,
            "dataset": holding.dataset,
            "keys": keys.hex(),
            "signer": publication.signer,
            "version": publication.version,
            "sha256": publication.sha256,
            "level": str(verdict.level),
            "demanded": str(verdict.demanded),
        }
        return jose.encrypt_to(session.tee_pubkey, canonical(document))

    def _verified(self, name: str, version: str, tee: str, attestation: Attestation, at: datetime) -> Session:
        """Return the session that evidence is good for.

        Raises:
            EvidenceError: None.
        """
        runtime = attestation.runtime
        if "broker" in runtime.extra:
            named = runtime.extra["broker"]
            if not (isinstance(named, str) and hmac.compare_digest(named.encode(), self._identity.encode())):
                raise EvidenceError(
                    "the evidence was made for another broker", "ask that one, or check the address"
                )
        elif not self._accept_unbound:
            raise EvidenceError(
                "the evidence names no broker", f'bind it to this one: "broker": "{self._identity}"'
            )
        bound = runtime.extra.get("bound")
        if "bound" in runtime.extra and not (isinstance(bound, str) and _BOUND.fullmatch(bound)):
            raise EvidenceError("what the evidence is bound to besides is no digest", "send it as hex digits")
        try:
            report_data = bound_data(version, runtime).report_data()
        except DocumentError as error:
            raise EvidenceError(error.message) from None
        claims = self._verifier().verify(Evidence(tee, attestation.body), report_data, at)
        return Session(
            name,
            runtime.tee_pubkey,
            None if claims.tee == SAMPLE else claims,  # it proves nothing, whatever it says
            bound,
            int(at.timestamp()) + LIFETIME,
        )

    def _asked(self, transaction: sqlite3.Connection, session: Session, resource: Resource, at: datetime) -> Asked:
        holding = holdings.get_holding(transaction, resource.owner, resource.dataset)
        publication = holding.newest if holding else None
        if holding is not None and resource.version is not None:
            publication = holdings.get_publication(transaction, resource.owner, resource.dataset, resource.version)
        manifest = None
        if holding is not None and session.claims is not None:
            found = holdings.get_manifest(transaction, resource.owner, session.claims.measurement)
            manifest = found[0] if found else None
        agreement = None
        if session.bound is not None:
            member = members.get_member(transaction, resource.owner)
            owner = member.signer if member else None
            agreement = agreements.agreement_on(transaction, session.bound, resource, owner, _run_of(session))
        return Asked(resource, session, holding, publication, manifest, agreement, at)

    def _now(self) -> int:
        return int(self._clock().timestamp())


def _run_of(session: Session) -> str:
    """Return what tells a run apart: its key pair, which it makes once."""
    return digest(dict(session.tee_pubkey))


def _described(session: Session) -> dict[str, Any]:
    """Return what the log says of an environment."""
    claims = session.claims
    described: dict[str, Any] = {"session": session.name, "key": _run_of(session)}
    if session.bound is not None:
        described["bound"] = session.bound
    if claims is None:
        return described
    return {
        **described,
        "tee": claims.tee,
        "measurement": claims.measurement,
        "signer": claims.signer,
        "tcb_status": claims.tcb_status,
        "debug": claims.debug,
    }


def _record(asked: Asked, decision: Decision) -> dict[str, Any]:
    """Return what the log says of a decision."""
    record = {**_described(asked.session), "resource": str(asked.resource), "reason": decision.reason[:_MAX_REASON]}
    if asked.holding is not None:
        record |= {"policy": asked.holding.policy.digest, "revision": asked.holding.revision}
    if asked.agreement is not None:
        task = asked.agreement.task
        taken = asked.agreement.runs_taken + (not asked.agreement.is_known_run and decision.problem is None)
        record |= {"task": task.contract.id, "runs": f"{taken} of {task.contract.runs}"}
    if asked.publication is not None:
        record |= {"version": asked.publication.version, "sha256": asked.publication.sha256}
    if decision.verdict is not None:
        record |= {"level": str(decision.verdict.level), "demanded": str(decision.verdict.demanded)}
    return record
