# A trained model's word on every slide of this run; only where the configuration has a section `predict`.
rule predict:
    input:
        expand(rules.embed.output, encoder=PLAN.embed, chunk=PLAN.chunks),
        expand(rules.embed_slides.output, slide_encoder=PLAN.pooled),
        [] if PLAN.foreign_model else expand(rules.train_mil.output, encoder=PLAN.trained),
        model=present([PLAN.foreign_model]),
    output:
        f"{MARKS}/predict/predict.done",
    log:
        f"{LOGS}/predict/predict.log",
    params:
        options=shlex.join(PLAN.predict.flags) if PLAN.predict else "",
    threads: 4
    resources:
        gpu=PLAN.predict.gpus if PLAN.predict else 0,
    shell:
        "{CLI} predict --run {RUN} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
