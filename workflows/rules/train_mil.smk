# Slide-level models on whatever slides could be embedded: one job per encoder, or for the slide embeddings that the
# section names, for the whole cohort.
rule train_mil:
    input:
        lambda wildcards: (
            expand(rules.embed_slides.output, slide_encoder=PLAN.embeddings_for(wildcards.encoder))
            or expand(rules.embed.output, encoder=wildcards.encoder, chunk=PLAN.chunks)
        ),
        clinical=PLAN.clinical,
    output:
        f"{MARKS}/train-mil/{{encoder}}.done",
    log:
        f"{LOGS}/train-mil/{{encoder}}.log",
    params:
        options=shlex.join(PLAN.train_mil.flags) if PLAN.train_mil else "",
    threads: 4
    resources:
        gpu=PLAN.train_mil.gpus if PLAN.train_mil else 0,
    shell:
        "{CLI} train-mil --run {RUN} --features {wildcards.encoder:q} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
