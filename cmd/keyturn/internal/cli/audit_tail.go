package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/audit/verify"
	"github.com/spf13/cobra"
)

func auditTailCommand() *cobra.Command {
	out := formatTable
	var n int
	var follow bool
	cmd := &cobra.Command{
		Use:   "tail FILE…",
		Short: "Print the last records of an audit log, and those to come",
		Long: `Print the last records of an audit log. With --follow those to come are printed,
too, also after the log was rotated. Records are printed as they stand there: that
nobody changed them is what verify says.`,
		Example: `  keyturn audit tail --follow /var/log/keyturn/audit.jsonl
  keyturn audit tail -n 1000 -o json /var/log/keyturn/audit.jsonl | jq 'select(.decision == "deny")'`,
		Args: cobra.MinimumNArgs(1),
	}
	f := cmd.Flags()
	f.IntVarP(&n, "lines", "n", 10, "how many records")
	f.BoolVarP(&follow, "follow", "f", false, "go on with the records to come")
	f.VarP(&out, "output", "o", "table, json (the lines as they stand) or yaml (a document for each)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if n < 0 {
			return usagef("-n %d: a number of records", n)
		}
		files, err := verify.InOrder(withoutLocks(args))
		if err != nil {
			return err
		}
		p := &recordPrinter{w: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(), form: out}
		last := files[len(files)-1]
		if !follow {
			lines, err := lastLines(files, n)
			if err != nil {
				return err
			}
			return p.print(lines)
		}
		before, err := lastLines(files[:len(files)-1], n)
		if err != nil {
			return err
		}
		return (&follower{path: last, warn: p.warn}).run(cmd.Context(), n, func(lines []string, first bool) error {
			if first {
				lines = append(before, lines...)
				lines = lines[max(0, len(lines)-n):]
			}
			return p.print(lines)
		})
	}
	return cmd
}

// lastLines are the last whole lines of some files. One that was cut off at the
// end of a file is shown as well: it is damage.
func lastLines(files []string, n int) ([]string, error) {
	var out []string
	for i := len(files) - 1; i >= 0 && len(out) < n; i-- {
		var ring []string
		err := verify.EachLine(files[i], func(line []byte, _ bool) bool {
			if ring = append(ring, string(line)); len(ring) > 2*n {
				ring = append(ring[:0], ring[len(ring)-n:]...)
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		out = append(ring, out...)
		out = out[max(0, len(out)-n):]
	}
	return out, nil
}

// recordPrinter prints records as they come, in columns that grow.
type recordPrinter struct {
	w, errs io.Writer
	form    format
	widths  []int
	began   bool
}

func (p *recordPrinter) warn(format string, args ...any) {
	fmt.Fprintf(p.errs, "warning: "+format+"\n", args...)
}

func (p *recordPrinter) print(lines []string) error {
	var rows [][]string
	for _, line := range lines {
		if p.form == formatTable {
			rows = append(rows, row(line))
		} else if err := p.document(line); err != nil {
			return err
		}
	}
	if p.form != formatTable {
		return nil
	}
	if !p.began {
		rows = append([][]string{{"TIME", "DECISION", "CODE", "EVENT", "PROFILE", "UID/PID", "KID", "JTI", "SUBJECT", "AUDIENCES", "EXPIRES", "SOCKET", "REASON"}}, rows...)
		p.began, p.widths = true, make([]int, len(rows[0]))
	}
	return p.columns(rows)
}

// document prints a record as JSON in a line, or as a YAML document.
func (p *recordPrinter) document(line string) error {
	if !json.Valid([]byte(line)) {
		p.warn("a line that is no record is left out")
		return nil
	}
	if p.form == formatJSON {
		_, err := fmt.Fprintln(p.w, printing(line))
		return err
	}
	if _, err := fmt.Fprintln(p.w, "---"); err != nil {
		return err
	}
	return printYAML(p.w, json.RawMessage(line))
}

func (p *recordPrinter) columns(rows [][]string) error {
	for _, r := range rows {
		for i, cell := range r {
			if cell == "" {
				r[i] = "–"
			}
			r[i] = plainText(r[i])
			if len(r) == len(p.widths) {
				p.widths[i] = min(48, max(p.widths[i], utf8.RuneCountInString(r[i])))
			}
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", max(0, p.widths[i]-utf8.RuneCountInString(cell))+2))
			}
		}
		if _, err := fmt.Fprintln(p.w, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// row is a record as cells. What a caller chose is quoted where it could be
// taken for more than one cell.
func row(line string) []string {
	var r struct {
		audit.Record
		TornBytes int64 `json:"torn_bytes"`
	}
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return []string{"?", "this line is no record: " + shortened(line)}
	}
	if r.Event == audit.EventTorn {
		return []string{stamp(r.Time), fmt.Sprintf("%d bytes before this were cut off by a crash or a full disk", r.TornBytes)}
	}
	code := r.Code
	if r.Count > 0 {
		code = strings.TrimSpace(fmt.Sprintf("%s ×%d", code, r.Count))
	}
	var audiences []string
	for _, a := range r.Audiences {
		audiences = append(audiences, word(a))
	}
	return []string{
		r.Time.UTC().Format(time.RFC3339), word(string(r.Decision)), code, word(string(r.Event)), word(r.Profile),
		strconv.FormatUint(uint64(r.UID), 10) + "/" + strconv.FormatInt(int64(r.PID), 10),
		word(r.Kid), word(r.JTI), word(r.Subject), strings.Join(audiences, ","), stamp(r.ExpiresAt),
		word(r.Socket), shortened(r.Reason),
	}
}

func word(s string) string {
	if s == "" {
		return ""
	}
	return oneWord(s)
}

func shortened(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}
