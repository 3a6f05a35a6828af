package sequence

const goldenSalt = "8a6a53dfebd0beabe80a8068c94ee3147891b654212f3606994994b1a2fa6105"

var goldenKeys = []string{
	"0000009ccdf1f8097167facedfda1d56",
	"0000019a82381ad40a3798b39a0d79da",
}
