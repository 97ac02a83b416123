"""Files made by hand for the tests of readers."""

import io
import zipfile


def make_pdf(pages, font="/Helvetica", extra="", rest=""):
    """A PDF whose pages show lines of text; a page None shows a grey picture, as a scanned one does."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", f"<< /Type /Font /Subtype /Type1 /BaseFont {font} >>"]
    objects.append(
        "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 "
        "/Length 1 >>\nstream\n\x80\nendstream"
    )
    kids = []
    for lines in pages:
        if lines is None:
            drawn = "q 400 0 0 600 100 100 cm /I1 Do Q"
        else:
            shown = " ".join(f"({line}) Tj T*" for line in lines)
            drawn = f"BT /F1 12 Tf 72 720 Td 14 TL {shown} ET"
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R {extra} "
            f"/Resources << /Font << /F1 3 0 R >> /XObject << /I1 4 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{each}\nendobj\n".encode("latin-1")
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010d} 00000 n \n" for at in places)
    end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R {rest} >>\nstartxref\n{len(out)}\n%%EOF"
    return out + table.encode() + end.encode()


def encrypted_pdf():
    """One whose empty password is wrong: the check value is of no password at all."""
    check = "00" * 32
    encrypt = f"/Encrypt << /Filter /Standard /V 1 /R 2 /Length 40 /P -4 /O <{check}> /U <{check}> >> /ID [<00> <00>]"
    return make_pdf([["secret"]], rest=encrypt)


def repack(docx, **changed):
    """A .docx with files of it replaced; "/" in a name is written "__" and "." is "_x_"."""
    out = io.BytesIO()
    changes = {name.replace("__", "/").replace("_x_", "."): content for name, content in changed.items()}
    with zipfile.ZipFile(io.BytesIO(docx)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for each in old.infolist():
            if each.filename not in changes:
                new.writestr(each.filename, old.read(each))
        for name, content in changes.items():
            new.writestr(name, content)
    return out.getvalue()
