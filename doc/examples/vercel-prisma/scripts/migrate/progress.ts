// One line that says how far it is: rewritten on a terminal, and elsewhere a
// line now and then.

const SECONDS_BETWEEN_LINES = 5

export class Progress {
    private what = ''
    private total = 0
    private done = 0
    private began = 0
    private shown = 0

    begin(what: string, total: number) {
        this.what = what
        this.total = total
        this.done = 0
        this.began = this.shown = performance.now()
        if (process.stderr.isTTY)
            this.show('\r')
    }

    advance(rows: number) {
        this.done += rows
        const pause = process.stderr.isTTY ? 0.1 : SECONDS_BETWEEN_LINES
        if (performance.now() - this.shown > pause * 1000)
            this.show(process.stderr.isTTY ? '\r' : '\n')
    }

    end() {
        this.show('\n')
    }

    private show(end: string) {
        const seconds = (performance.now() - this.began) / 1000
        const percent = this.total ? this.done * 100 / this.total : 100
        process.stderr.write(`${this.what.padEnd(28)} `
            + `${String(this.done).padStart(9)} of ${this.total}`
            + ` ${percent.toFixed(0).padStart(4)} %`
            + ` ${seconds.toFixed(1).padStart(6)} s  ${end}`)
        this.shown = performance.now()
    }
}
