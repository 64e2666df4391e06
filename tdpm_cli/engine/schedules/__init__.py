"""Noise schedules before truncation. One file a schedule, each a function of keyword-only arguments -> Schedule."""
