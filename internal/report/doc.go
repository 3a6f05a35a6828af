// Package report writes the result of a replay as a web page: one file that needs
// nothing else, with charts as SVG, for light and dark screens and for print. It
// runs no script; the values under the pointer come from the browser's tooltips.
//
//	report.go   the page: figures, tables, parameters   page.html
//	charts.go   what is drawn, from the summary's series
//	plot.go     how: axes, lines, stacked areas
package report
