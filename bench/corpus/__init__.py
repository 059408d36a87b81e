"""Nets that fail for a known reason, their repaired twins, and healthy nets that look suspicious.

Rules of diagnosis are calibrated on one part of them and judged on the other.
"""
