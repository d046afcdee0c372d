"""Certificates: proofs that run in place, on the user's own machine and cluster, from an installed package."""

from __future__ import annotations

from megatron_salamandra.certificates.certificate import Certificate, certify, write_certificates
from megatron_salamandra.certificates.proof import Proof
from megatron_salamandra.certificates.requeue import Drill

__all__ = ["Certificate", "Drill", "Proof", "certify", "write_certificates"]
