package profile

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Bar is what one kind of request costs.
type Bar struct {
	Title string
	// Micros is processor time a token, by owner; Load is the asking process's.
	Micros map[string]float64
	Load   float64
}

func (b Bar) total() float64 {
	sum := b.Load
	for _, us := range b.Micros {
		sum += us
	}
	return sum
}

const (
	width     = 900.0
	left      = 150.0 // of the bars
	barHeight = 34.0
	barStep   = 58.0
	lineStep  = 21.0
)

// Draw writes the bars as an SVG picture, one below the other, on one scale.
func Draw(w io.Writer, title string, bars []Bar) error {
	most := 0.0
	for _, b := range bars {
		most = max(most, b.total())
	}
	scale := (width - left - 70) / most
	legend := append(Owners(), Owner{"load", "the load generator, which shares the processors", "#5a5a5a", "white"})
	height := 50 + barStep*float64(len(bars)) + lineStep*float64((len(legend)+1)/2) + 16
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(&s, `<rect width="%.0f" height="%.0f" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&s, `<text x="12" y="24" font-size="15" font-weight="bold" fill="#222222">%s</text>`+"\n", html.EscapeString(title))
	for i, b := range bars {
		drawBar(&s, b, 42+barStep*float64(i), scale, legend)
	}
	for i, o := range legend {
		x, y := 12+float64(i%2)*width/2, 50+barStep*float64(len(bars))+lineStep*float64(i/2)
		fmt.Fprintf(&s, `<rect x="%.0f" y="%.0f" width="13" height="13" fill="%s"/><text x="%.0f" y="%.0f" fill="#222222">%s</text>`+"\n",
			x, y, o.Colour, x+20, y+11, html.EscapeString(o.Title))
	}
	s.WriteString("</svg>\n")
	_, err := io.WriteString(w, s.String())
	return err
}

func drawBar(s *strings.Builder, b Bar, y, scale float64, legend []Owner) {
	fmt.Fprintf(s, `<text x="12" y="%.0f" fill="#222222">%s</text>`+"\n", y+22, html.EscapeString(b.Title))
	x := left
	for _, o := range legend {
		us := b.Micros[o.Key]
		if o.Key == "load" {
			us = b.Load
		}
		long := us * scale
		if long < 0.5 {
			continue
		}
		fmt.Fprintf(s, `<rect x="%.1f" y="%.0f" width="%.1f" height="%.0f" fill="%s"><title>%s: %.1f µs</title></rect>`+"\n",
			x, y, long, barHeight, o.Colour, html.EscapeString(o.Title), us)
		if long > 26 {
			fmt.Fprintf(s, `<text x="%.1f" y="%.0f" text-anchor="middle" fill="%s" font-size="12">%.1f</text>`+"\n", x+long/2, y+22, o.Ink, us)
		}
		x += long
	}
	fmt.Fprintf(s, `<text x="%.1f" y="%.0f" fill="#222222" font-weight="bold">%.1f µs</text>`+"\n", x+6, y+22, b.total())
}
