# One vector per slide; only where the configuration has a section `embed-slides`. One job per slide encoder, for the
# whole cohort: it reads features, which is quick, and writes one table of all slides.


rule embed_slides:
    input:
        lambda wildcards: expand(
            rules.embed.output, encoder=PLAN.pooled_of(wildcards.slide_encoder), chunk=PLAN.chunks
        ),
        files=lambda wildcards: PLAN.pooling_files(wildcards.slide_encoder),
    output:
        f"{MARKS}/embed-slides/{{slide_encoder}}.done",
    log:
        f"{LOGS}/embed-slides/{{slide_encoder}}.log",
    params:
        options=lambda wildcards: shlex.join(PLAN.pooled[wildcards.slide_encoder].flags),
    threads: 4
    resources:
        gpu=lambda wildcards: PLAN.pooled[wildcards.slide_encoder].gpus,
    shell:
        "{CLI} embed-slides --run {RUN} {params.options}"
        " > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
