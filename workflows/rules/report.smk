# The report, when everything that the configuration names is done.
rule report:
    input:
        expand(rules.tile.output, chunk=PLAN.chunks),
        expand(rules.embed.output, encoder=PLAN.embed, chunk=PLAN.chunks),
        expand(rules.embed_slides.output, slide_encoder=PLAN.pooled),
        rules.tune.output if PLAN.tune else [],
        expand(rules.classify.output, chunk=PLAN.chunks) if PLAN.classify else [],
        rules.heatmap.output if PLAN.train_mil else [],
        rules.predict.output if PLAN.predict else [],
    output:
        f"{MARKS}/report/report.done",
    log:
        f"{LOGS}/report/report.log",
    threads: 1
    shell:
        "{CLI} report --run {RUN} > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
