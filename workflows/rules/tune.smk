# A vision transformer tuned on labelled patches; only where the configuration has a section `tune`. One job. Without
# the key `labels` it learns from the labels of these slides, so it waits for them to be tiled.


rule tune:
    input:
        [] if PLAN.labels else expand(rules.tile.output, chunk=PLAN.chunks),
        weights=PLAN.tune_weights,
    output:
        f"{MARKS}/tune/tune.done",
    log:
        f"{LOGS}/tune/tune.log",
    params:
        watched=PLAN.labels_watched,
        labels=shlex.join(PLAN.labels),
        options=shlex.join(PLAN.tune.flags) if PLAN.tune else "",
    threads: 4
    resources:
        gpu=PLAN.tune.gpus if PLAN.tune else 0,
    shell:
        "{CLI} tune {params.labels} --run {RUN} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
