# Tissue masks, contours and overlays. `group`: on a cluster this and `tile` are one job.
rule segment:
    input:
        slides=lambda wildcards: PLAN.chunks[wildcards.chunk].files,
    output:
        f"{MARKS}/segment/{{chunk}}.done",
    log:
        f"{LOGS}/segment/{{chunk}}.log",
    params:
        only=lambda wildcards: PLAN.chunks[wildcards.chunk].only,
        watched=lambda wildcards: PLAN.chunks[wildcards.chunk].watched,
        options=shlex.join(PLAN.tile.as_command("segment").flags),
    threads: 1
    group:
        "tissue"
    shell:
        "{CLI} segment {SLIDES} --run {RUN} --only {params.only:q} --workers {threads} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
