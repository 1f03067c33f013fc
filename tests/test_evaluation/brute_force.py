"""Ranks and metrics as plain loops over Python numbers, one query at a time: what the fast code must agree with."""
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
