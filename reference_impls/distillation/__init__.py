"""Distillation: one student learns from several teachers.

Inputs are teachers and data (or none); the output is a trained student.
"""
