# Attention of every trained model over every slide. One job: `train-mil` has drawn most of them already.
rule heatmap:
    input:
        expand(rules.train_mil.output, encoder=PLAN.trained),
    output:
        f"{MARKS}/heatmap/heatmap.done",
    log:
        f"{LOGS}/heatmap/heatmap.log",
    threads: 1
    shell:
        "{CLI} heatmap --run {RUN} > {log:q} 2>&1 && code=0 || code=$?; {OUTCOME} > {output:q}"
