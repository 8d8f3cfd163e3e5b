# Patches over tissue, one patch store per slide.
rule tile:
    input:
        rules.segment.output,
    output:
        f"{MARKS}/tile/{{chunk}}.done",
    log:
        f"{LOGS}/tile/{{chunk}}.log",
    params:
        only=lambda wildcards: PLAN.chunks[wildcards.chunk].only,
        options=shlex.join(PLAN.tile.flags),
    threads: 1
    group:
        "tissue"
    shell:
        "{CLI} tile {SLIDES} --run {RUN} --only {params.only:q} --workers {threads} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
