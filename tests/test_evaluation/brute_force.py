"""Ranks and metrics as plain loops over Python numbers, one query at a time: what the fast code must agree with."""
import math
from statistics import mean, median


def rank_among(true, others, ties):
    better = sum(other > true for other in others)
    equal = sum(other == true for other in others)
    return 1 + better + dict(pessimistic=equal, optimistic=0, mean=equal / 2)[ties]


def ranks(similarity, text_to_video, ties='pessimistic', v2t_protocol='video'):
    rows = [[float(x) for x in row] for row in similarity]
    owner = [int(v) for v in text_to_video]
    videos = range(len(rows[0]))
    t2v = [rank_among(row[v], [row[w] for w in videos if w != v], ties) for row, v in zip(rows, owner, strict=True)]
    v2t = []
    for v in videos:
        of = {w: [row[v] for row, o in zip(rows, owner, strict=True) if o == w] for w in videos}
        if v2t_protocol == 'video':
            others = [max(of[w]) for w in videos if w != v]
        else:
            others = [x for w in videos if w != v for x in of[w]]
        v2t.append(rank_among(max(of[v]), others, ties))
    return dict(t2v=t2v, v2t=v2t)


def metrics(similarity, text_to_video, ties='pessimistic', v2t_protocol='video'):
    result = {}
    for direction, values in ranks(similarity, text_to_video, ties, v2t_protocol).items():
        recall = {k: 100 * mean(rank <= k for rank in values) for k in (1, 5, 10, 50)}
        result[direction] = dict({f'R{k}': recall[k] for k in recall}, Rsum=recall[1] + recall[5] + recall[10],
                                 MdR=median(values), MnR=mean(values))
    return result


def dual_softmax(similarity, direction, scale=100.):
    """Each score times its share among what the other axis's members give to the same item."""
    rows = [[float(x) for x in row] for row in similarity]
    texts, videos = range(len(rows)), range(len(rows[0]))
    out = [[0.] * len(videos) for _ in texts]
    for t in texts:
        for v in videos:
            others = [rows[u][v] for u in texts] if direction == 't2v' else [rows[t][w] for w in videos]
            out[t][v] = rows[t][v] * math.exp(scale * rows[t][v]) / math.fsum(math.exp(scale * x) for x in others)
    return out


def sinkhorn(similarity, scale=100., iterations=10, end='columns'):
    """The transport plan, scaled to uniform sums of rows and columns in turn; last of columns, or of rows."""
    plan = [[math.exp(scale * float(x)) for x in row] for row in similarity]
    texts, videos = len(plan), len(plan[0])

    def rows():
        for t, row in enumerate(plan):
            total = math.fsum(row) * texts
            plan[t] = [x / total for x in row]

    def columns():
        totals = [math.fsum(row[v] for row in plan) * videos for v in range(videos)]
        for row in plan:
            row[:] = [x / total for x, total in zip(row, totals, strict=True)]

    for _ in range(iterations):
        rows()
        columns()
    if end == 'rows':
        rows()
    return plan


def qb_norm(queries, bank, scale=20.):
    """Dynamic inverted softmax of queries [Q, G] with a bank [B, G]: logarithms where a query is normalized."""
    hubs = set()
    for row in bank:
        hubs |= {g for g, x in enumerate(row) if float(x) == max(map(float, row))}
    mass = [math.log(math.fsum(math.exp(scale * float(row[g])) for row in bank)) for g in range(len(bank[0]))]
    out = []
    for row in queries:
        row = [float(x) for x in row]
        best = {g for g, x in enumerate(row) if x == max(row)}
        out.append([scale * x - mass[g] for g, x in enumerate(row)] if best & hubs else row)
    return out
