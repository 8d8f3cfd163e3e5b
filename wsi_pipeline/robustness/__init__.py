"""How far features move when a patch is changed a little, beside the distances between patches: on arrays alone."""
