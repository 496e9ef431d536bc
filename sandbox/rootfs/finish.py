"""Makes a directory of installed packages ready for a read-only root: finish.py DIRECTORY [PATH INSIDE].

Leaves out what nobody runs, compiles the rest once, keeps matplotlib's list of fonts, and uses every package.
Prints a line a step. Run it with -ISB, so that only what is in the directory and in Python itself can be found.
"""

import compileall
import io
import os
import py_compile
import shutil
import sys

# Tests are a sixth of all. numpy's own stay: numpy.testing imports from them, and scipy imports that.
TESTS_OF = ['contourpy', 'joblib', 'matplotlib', 'mpl_toolkits', 'narwhals', 'pandas', 'psutil', 'scipy', 'sklearn']
# Scripts would name the interpreter of the machine that installed them.
UNUSED = ['bin', 'share', 'include', 'matplotlib/mpl-data/sample_data']


def main():
    directory = os.path.realpath(sys.argv[1])
    inside = sys.argv[2] if len(sys.argv) > 2 else '/opt/wheels'
    say('Leaving out tests')
    prune(directory)
    say('Compiling')
    compile_all(directory, inside)
    say('Looking for fonts')
    sys.path.insert(0, directory)
    keep_fonts(directory)
    say('Trying the packages')
    use_packages()


def say(step):
    print(step, flush=True)


def prune(directory):
    for name in UNUSED:
        shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    for package in TESTS_OF:
        for parent, folders, _ in os.walk(os.path.join(directory, package)):
            if 'tests' in folders:
                folders.remove('tests')
                shutil.rmtree(os.path.join(parent, 'tests'))


def compile_all(directory, inside):
    try:
        compile_with(directory, inside, workers=0)
    except OSError:
        # Without shared memory (/dev/shm) processes cannot share work.
        compile_with(directory, inside, workers=1)


def compile_with(directory, inside, workers):
    # Files for other versions of Python are among the packages: those that do not compile stay as they are.
    # Unchecked: a file's time may change on its way into an image, and nobody could write the byte code anew.
    compileall.compile_dir(
        directory,
        quiet=2,
        workers=workers,
        stripdir=directory,
        prependdir=inside,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def keep_fonts(directory):
    """matplotlib does not use a read-only directory: the kernel copies the list into the sandbox's own."""
    kept = os.path.join(directory, '.matplotlib')
    os.makedirs(kept, exist_ok=True)
    os.environ['MPLCONFIGDIR'] = kept
    os.environ['MPLBACKEND'] = 'Agg'
    import matplotlib.font_manager as fonts

    def is_inside(entry):
        # matplotlib's own have relative paths by then; this machine's others cannot be seen from inside.
        return entry.fname.startswith(('/usr/share/fonts/', directory + os.sep))

    manager = fonts.fontManager
    manager.ttflist = [entry for entry in manager.ttflist if is_inside(entry)]
    manager.afmlist = [entry for entry in manager.afmlist if is_inside(entry)]
    for name in os.listdir(kept):
        os.remove(os.path.join(kept, name))
    fonts.json_dump(manager, os.path.join(kept, f'fontlist-v{manager.__version__}.json'))


def use_packages():
    import docx
    import IPython.core.interactiveshell
    import matplotlib.pyplot as plot
    import numpy
    import openpyxl
    import pandas
    import PIL.Image
    import pptx
    import pypdf
    import reportlab.pdfgen.canvas
    import scipy.optimize
    import scipy.stats
    import sklearn.linear_model

    numbers = numpy.arange(10.0)
    table = pandas.DataFrame({'x': numbers, 'y': numbers * 2})
    sheet = io.BytesIO()
    table.to_excel(sheet, engine='openpyxl')
    openpyxl.load_workbook(sheet)
    picture = io.BytesIO()
    table.plot()
    plot.savefig(picture, format='png')
    PIL.Image.open(picture).load()
    page = io.BytesIO()
    canvas = reportlab.pdfgen.canvas.Canvas(page)
    canvas.drawString(72, 72, 'page')
    canvas.save()
    pypdf.PdfReader(page).pages[0].extract_text()
    docx.Document().save(io.BytesIO())
    pptx.Presentation().save(io.BytesIO())
    scipy.optimize.minimize(lambda x: (x**2).sum(), numbers)
    sklearn.linear_model.LinearRegression().fit(table[['x']], table['y'])
    # An instance would write its history into somebody's home.
    assert IPython.core.interactiveshell.InteractiveShell.run_cell


if __name__ == '__main__':
    main()
