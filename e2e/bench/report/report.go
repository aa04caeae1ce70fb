package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// ratio is one measurement beside another of the same round.
type ratio struct{ name, over, under string }

// Report collects what the rounds measured.
type Report struct {
	names  []string // in the order in which they are printed
	units  map[string]string
	values map[string][]float64 // by round
	ratios []ratio
}

// New is an empty report.
func New() *Report {
	return &Report{units: map[string]string{}, values: map[string][]float64{}}
}

// Add notes what one round measured under a name.
func (r *Report) Add(name, unit string, value float64) {
	if _, known := r.units[name]; !known {
		r.names = append(r.names, name)
		r.units[name] = unit
	}
	r.values[name] = append(r.values[name], value)
}

// Compare wants a ratio of two names.
func (r *Report) Compare(name, over, under string) {
	r.ratios = append(r.ratios, ratio{name, over, under})
}

// Write prints the median of the rounds, and of the ratios within each round:
// what drifts from round to round hits both sides of a ratio.
func (r *Report) Write(w io.Writer) error {
	for _, name := range r.names {
		if _, err := fmt.Fprintf(w, "bench %s %s %s\n", name, number(median(r.values[name])), r.units[name]); err != nil {
			return err
		}
	}
	for _, q := range r.ratios {
		over, under := r.values[q.over], r.values[q.under]
		if len(over) != len(under) || len(over) == 0 {
			return fmt.Errorf("ratio %s: %d rounds of %s and %d of %s (known: %v)", q.name, len(over), q.over, len(under), q.under, slices.Sorted(maps.Keys(r.values)))
		}
		each := make([]float64, len(over))
		for i := range over {
			each[i] = over[i] / under[i]
		}
		if _, err := fmt.Fprintf(w, "ratio %s %.3f\n", q.name, median(each)); err != nil {
			return err
		}
	}
	return nil
}

// Median is the median of what the rounds measured under a name.
func (r *Report) Median(name string) float64 { return median(r.values[name]) }

// number has as many digits as mean something.
func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return 0
	}
	if mid := len(s) / 2; len(s)%2 == 1 {
		return s[mid]
	} else {
		return (s[mid-1] + s[mid]) / 2
	}
}
