"""Numbers of several rounds: median, smallest, biggest, ratios; as a table
that is read by people, and as JSON."""

import json
import os
import platform
import statistics


class Results:
    """values[scenario][metric][contender][round] is a number."""

    def __init__(self):
        self.values = {}
        self.metrics = {}

    def add(self, scenario, contender, turn, found):
        rows = self.values.setdefault(scenario.name, {})
        for metric in scenario.metrics:
            self.metrics[scenario.name, metric.name] = metric
            rows.setdefault(metric.name, {}).setdefault(
                contender.name, {})[turn] = found[metric.name]

    def rounds(self, scenario, metric, contender):
        return self.values.get(scenario, {}).get(metric, {}).get(
            contender, {})

    def summary(self, scenario, metric, contender):
        """None where there is no number."""
        values = list(self.rounds(scenario, metric, contender).values())
        if not values:
            return None
        return {"median": statistics.median(values), "min": min(values),
                "max": max(values), "rounds": values}

    def ratio(self, scenario, metric, contender, base):
        """The median of the ratios of each round: what slows the machine
        down for a while slows down both sides of a ratio. None if there is
        nothing to compare."""
        if not self.metrics[scenario, metric].ratios or contender == base:
            return None
        ours = self.rounds(scenario, metric, contender)
        theirs = self.rounds(scenario, metric, base)
        ratios = [ours[turn] / theirs[turn] for turn in ours
                  if theirs.get(turn)]
        return statistics.median(ratios) if ratios else None


def number(value):
    if abs(value) >= 1000:
        return f"{value:.0f}"
    if abs(value) >= 100:
        return f"{value:.1f}"
    return f"{value:.2f}"


def contender_line(results, scenario, metric, contender):
    found = results.summary(scenario, metric, contender)
    text = (f"  {contender:<12}{number(found['median']):>9}  "
            f"{number(found['min']):>8} .. {number(found['max']):<8}")
    for base in ("floor", "pgbouncer"):
        ratio = results.ratio(scenario, metric, contender, base)
        shown = "" if ratio is None else f"{ratio:.2f}x {base}"
        text += f"  {shown:<15}"
    return text.rstrip()


def print_scenario(results, scenario, order):
    for metric, contenders in results.values.get(scenario, {}).items():
        unit = results.metrics[scenario, metric].unit
        print(f"{scenario}: {metric}, {unit}")
        for contender in order:
            if contender in contenders:
                print(contender_line(results, scenario, metric, contender))


def write_json(results, options, path):
    scenarios = {}
    for scenario, metrics in results.values.items():
        for metric, contenders in metrics.items():
            rows = {}
            for contender in contenders:
                row = results.summary(scenario, metric, contender)
                for base in ("floor", "pgbouncer"):
                    row["to_" + base] = results.ratio(
                        scenario, metric, contender, base)
                rows[contender] = row
            scenarios.setdefault(scenario, {})[metric] = {
                "unit": results.metrics[scenario, metric].unit,
                "contenders": rows}
    machine = {"cores": os.cpu_count(), "kernel": platform.release()}
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"machine": machine, "rounds": options.rounds,
                   "seconds": options.seconds, "clients": options.clients,
                   "scenarios": scenarios}, out, indent=1)
        out.write("\n")
