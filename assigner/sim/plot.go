package sim

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"time"
)

// Plot is a drawing of curves over virtual time.
type Plot struct {
	Title, Unit string
	Curves      []Curve
	From        float64 // where the vertical axis begins
}

// Curve is one line of a Plot, and Name its legend if not empty.
type Curve struct {
	Name string
	At   []time.Duration
	Y    []float64
}

const (
	plotWide, plotHigh           = 720, 300
	plotLeft, plotTop, plotRight = 60, 30, 20
	plotBottom                   = 40
	maxPoints                    = 600
)

var plotColours = []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"}

// SVG draws the plot.
func (p Plot) SVG() []byte {
	end, top := time.Second, p.From
	for _, c := range p.Curves {
		for i, at := range c.At {
			end, top = max(end, at), max(top, c.Y[i])
		}
	}
	if top == p.From {
		top++
	}
	top = p.From + (top-p.From)*1.05
	x := func(at time.Duration) float64 {
		return plotLeft + float64(plotWide-plotLeft-plotRight)*float64(at)/float64(end)
	}
	y := func(v float64) float64 {
		return plotTop + float64(plotHigh-plotTop-plotBottom)*(1-(v-p.From)/(top-p.From))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", plotWide, plotHigh)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><text x="%d" y="18" font-size="13">%s</text>`+"\n", plotWide, plotHigh, plotLeft, html.EscapeString(p.Title))
	step := tick((top - p.From) / 5)
	for v := p.From; v <= top; v += step {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>`+"\n", plotLeft, y(v), plotWide-plotRight, plotLeft-5, y(v)+4, v)
	}
	for k := range 6 {
		at := end * time.Duration(k) / 5
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(at), plotHigh-plotBottom+16, short(at))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s, over virtual time</text>`+"\n", plotLeft, plotHigh-6, html.EscapeString(p.Unit))
	legend := plotLeft + 10
	for i, c := range p.Curves {
		colour := plotColours[i%len(plotColours)]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.3" points="`, colour)
		every := max(len(c.At)/maxPoints, 1)
		for n := 0; n < len(c.At); n += every {
			peak := c.Y[n] // of what one point stands for
			for _, v := range c.Y[n:min(n+every, len(c.Y))] {
				peak = max(peak, v)
			}
			fmt.Fprintf(&b, "%.1f,%.1f ", x(c.At[n]), y(peak))
		}
		b.WriteString("\"/>\n")
		if c.Name != "" {
			fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", legend, plotTop+10, colour, html.EscapeString(c.Name))
			legend += 14 + 6*len(c.Name)
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// tick is a round number near v.
func tick(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}

// curve is what of makes of each sample.
func (w *World) curve(name string, of func(sample) float64) Curve {
	c := Curve{Name: name}
	for _, s := range w.watch.series {
		c.At, c.Y = append(c.At, s.at), append(c.Y, of(s))
	}
	return c
}
