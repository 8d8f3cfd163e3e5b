# Classes of patches by a tuned adapter; only where the configuration has a section `classify`. One job per chunk; each
# writes fractions.csv anew, with the slides of all chunks done by then.


rule classify:
    input:
        rules.tile.output,
        tuned=rules.tune.output if PLAN.classify_waits_for_tune else [],
        weights=PLAN.classify_weights,
    output:
        f"{MARKS}/classify/{{chunk}}.done",
    log:
        f"{LOGS}/classify/{{chunk}}.log",
    params:
        only=lambda wildcards: PLAN.chunks[wildcards.chunk].only,
        options=shlex.join(PLAN.classify.flags) if PLAN.classify else "",
    threads: 4
    resources:
        gpu=PLAN.classify.gpus if PLAN.classify else 0,
    shell:
        "{CLI} classify --run {RUN} --only {params.only:q} --readers {threads} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?;"
        " {OUTCOME} > {output:q}"
