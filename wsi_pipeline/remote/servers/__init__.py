"""Ranged requests to the kinds of servers, through fsspec's file systems and the credentials they find."""
