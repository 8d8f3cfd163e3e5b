# Patches to features: one job per encoder and chunk. An encoder with `device: cuda` asks for a GPU. Encoders named
# pathotune wait for what `tune` makes of them. With `stain_target: auto` all slides are tiled first, as the most
# typical of them is chosen.

EVERY_CHUNK = expand(rules.tile.output, chunk=PLAN.chunks)


rule embed:
    input:
        rules.tile.output,
        stain=lambda wildcards: EVERY_CHUNK if PLAN.needs_cohort(wildcards.encoder) else [],
        tuned=lambda wildcards: rules.tune.output if PLAN.waits_for_tune(wildcards.encoder) else [],
        weights=lambda wildcards: PLAN.weights(wildcards.encoder),
    output:
        f"{MARKS}/embed/{{encoder}}/{{chunk}}.done",
    log:
        f"{LOGS}/embed/{{encoder}}/{{chunk}}.log",
    params:
        only=lambda wildcards: PLAN.chunks[wildcards.chunk].only,
        options=lambda wildcards: shlex.join(PLAN.embed[wildcards.encoder].flags),
    threads: 4
    resources:
        gpu=lambda wildcards: PLAN.embed[wildcards.encoder].gpus,
    shell:
        "{CLI} embed --run {RUN} --only {params.only:q} --readers {threads} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?;"
        " {OUTCOME} > {output:q}"
